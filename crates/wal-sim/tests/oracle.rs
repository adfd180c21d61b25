//! Random workloads against a simple account of what each byte may be after a crash.

#![allow(clippy::unwrap_used, reason = "helpers of tests may, as tests do")]

use std::collections::BTreeSet;

use wal_sim::{CrashPlan, Fault, OperationKind, SimStorage};
use wal_storage::{Access, Storage, WriteSync};

const FILE_BYTES: usize = 20_000;

/// What may be in one place of a file: the durable byte, and every byte written there since.
#[derive(Clone)]
struct Account {
    durable: Vec<u8>,
    since: Vec<Vec<u8>>,
    view: Vec<u8>,
    /// Below this the file exists after any crash.
    durable_size: usize,
    size: usize,
}

impl Account {
    fn new() -> Self {
        Self {
            durable: vec![0; FILE_BYTES],
            since: vec![Vec::new(); FILE_BYTES],
            view: vec![0; FILE_BYTES],
            durable_size: 0,
            size: 0,
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8], sync: WriteSync) {
        let range = offset..offset + bytes.len();
        self.view[range.clone()].copy_from_slice(bytes);
        self.size = self.size.max(range.end);
        for (at, byte) in range.clone().zip(bytes) {
            match sync {
                WriteSync::None => self.since[at].push(*byte),
                WriteSync::Through => {
                    self.durable[at] = *byte;
                    self.since[at].clear();
                }
            }
        }
        if sync == WriteSync::Through {
            self.durable_size = self.durable_size.max(range.end);
        }
    }

    fn sync(&mut self) {
        for (durable, since) in self.durable.iter_mut().zip(&mut self.since) {
            *durable = since.last().copied().unwrap_or(*durable);
            since.clear();
        }
        self.durable_size = self.size;
    }

    /// The failed sync took everything that was pending.
    fn failed_sync(&mut self) {
        self.since.iter_mut().for_each(Vec::clear);
    }

    fn check(&self, after: &SimStorage, seed: u64) {
        let bytes = after.read_file("f").unwrap();
        assert!((self.durable_size..=self.size).contains(&bytes.len()), "seed {seed}");
        for (at, byte) in bytes.iter().enumerate() {
            let allowed = *byte == self.durable[at] || self.since[at].contains(byte);
            assert!(allowed, "seed {seed}: byte {at} is {byte}");
        }
    }
}

#[test]
fn every_byte_after_a_crash_was_durable_or_written_since() {
    for seed in 0..40 {
        // Chance for the workload comes from a storage that is used for nothing else.
        let dice = SimStorage::new(seed);
        let below = |bound: usize| {
            let mut bytes = [0; 8];
            dice.fill_random(&mut bytes).unwrap();
            usize::try_from(u64::from_le_bytes(bytes) % bound as u64).unwrap()
        };
        let mut storage = SimStorage::new(seed);
        storage.write_file("f", b"").unwrap();
        let mut account = Account::new();
        let mut value = 0u8;
        for step in 0..60 {
            let file = storage.open("f", Access::ReadWrite).unwrap();
            match below(12) {
                0 => {
                    file.sync().unwrap();
                    account.sync();
                }
                1 => {
                    storage.inject(Fault::on(OperationKind::Sync));
                    file.sync().unwrap_err();
                    account.failed_sync();
                }
                2 => {
                    let after = storage.crash(CrashPlan::random(step));
                    account.check(&after, seed);
                    let bytes = after.read_file("f").unwrap();
                    account = Account::new();
                    account.write(0, &bytes, WriteSync::Through);
                    storage = after;
                }
                3 => storage = storage.kill(),
                choice => {
                    value = value.wrapping_add(1).max(1);
                    let length = 1 + below([10, 600, 9000][choice % 3]);
                    let bytes = vec![value; length];
                    let offset = below(FILE_BYTES - length);
                    let sync = if choice < 6 { WriteSync::Through } else { WriteSync::None };
                    file.write_at(
                        &[&bytes[..length / 2], &bytes[length / 2..]],
                        offset as u64,
                        sync,
                    )
                    .unwrap();
                    account.write(offset, &bytes, sync);
                }
            }
            assert_eq!(storage.read_file("f").unwrap(), account.view[..account.size]);
            let worst = storage.crash(CrashPlan::lose_everything_unsynced());
            assert_eq!(worst.read_file("f").unwrap(), account.durable[..account.durable_size]);
            for crash in 0..3 {
                account.check(&storage.crash(CrashPlan::random(step * 3 + crash)), seed);
            }
        }
    }
}

#[test]
fn over_seeds_a_byte_takes_every_value_that_it_may() {
    let storage = SimStorage::new(1);
    storage.write_file("f", &[0; 4096]).unwrap();
    let file = storage.open("f", Access::ReadWrite).unwrap();
    for value in 1..=4 {
        file.write_at(&[&[value; 4096]], 0, WriteSync::None).unwrap();
    }
    let states = (0..500).map(|seed| storage.crash(CrashPlan::random(seed)));
    let firsts: BTreeSet<u8> = states.map(|after| after.read_file("f").unwrap()[0]).collect();
    assert_eq!(firsts, (0..=4).collect());
}
