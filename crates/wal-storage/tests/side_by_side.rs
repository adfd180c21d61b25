//! Several requests in one call: each does what it would do alone, and says how it went.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may do what tests may"
)]

mod common;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::{AlignedBytes, directory_in_memory, directory_on_disk, say};
use wal_storage::{
    Access, DIRECT_BLOCK_BYTES, IoMode, OsStorage, Request, Result, Storage, StorageFile, WalError,
    WriteSync,
};

const BLOCK: usize = DIRECT_BLOCK_BYTES;
const SIZE: u64 = 140 * BLOCK as u64;

#[test]
fn files_written_side_by_side_all_carry_their_bytes() {
    for access in [Access::ReadWrite, Access::ReadWriteDirect] {
        for sync in [WriteSync::None, WriteSync::Through] {
            // The last is longer than what is handed to another thread.
            for (count, length) in [(2, BLOCK), (20, BLOCK), (3, 128 * BLOCK), (3, 129 * BLOCK)] {
                write_side_by_side(&directory_on_disk(), access, sync, count, length);
            }
        }
    }
}

#[test]
fn files_in_memory_written_side_by_side_all_carry_their_bytes() {
    if let Some(directory) = directory_in_memory() {
        for access in [Access::ReadWrite, Access::ReadWriteDirect] {
            write_side_by_side(&directory, access, WriteSync::Through, 8, 2 * BLOCK);
            fs::remove_dir_all(directory.path()).unwrap();
            fs::create_dir(directory.path()).unwrap();
        }
    }
}

fn write_side_by_side(
    directory: &tempfile::TempDir,
    access: Access,
    sync: WriteSync,
    count: u8,
    length: usize,
) {
    let storage = OsStorage::open(directory.path()).unwrap();
    let files = create_files(&storage, count, access);
    let bytes: Vec<AlignedBytes> =
        (0..count).map(|seed| AlignedBytes::patterned(length, seed)).collect();
    let slices: Vec<[&[u8]; 3]> =
        bytes.iter().map(|bytes| [&bytes[..BLOCK], &[], &bytes[BLOCK..]]).collect();
    let offsets = (1..).map(|block| block * BLOCK as u64);
    let requests: Vec<Request<'_>> = files
        .iter()
        .zip(&slices)
        .zip(offsets.clone())
        .map(|((file, slices), offset)| Request::Write { file: &**file, slices, offset, sync })
        .collect();
    // Twice: the second time over what is there already, by threads that are there already.
    for _ in 0..2 {
        let results = storage.perform(&requests);
        assert_eq!(results.len(), usize::from(count));
        results.into_iter().for_each(Result::unwrap);
        for ((index, bytes), offset) in bytes.iter().enumerate().zip(offsets.clone()) {
            let found = fs::read(directory.path().join(index.to_string())).unwrap();
            let start = usize::try_from(offset).unwrap();
            let (before, rest) = found.split_at(start);
            let (written, behind) = rest.split_at(length);
            assert!(*written == **bytes, "{index}: {access:?}, {sync:?}, {count} x {length}");
            assert!(before.iter().chain(behind).all(|byte| *byte == 0));
            assert_eq!(found.len() as u64, SIZE);
        }
    }
}

#[test]
fn one_failure_among_many_stays_alone_and_in_its_place() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let files = create_files(&storage, 9, Access::ReadWrite);
    for failing in 0..9 {
        let readable = storage.open(&failing.to_string(), Access::Read).unwrap();
        let text = format!("without {failing}");
        let slices: [&[u8]; 1] = [text.as_bytes()];
        let requests: Vec<Request<'_>> = (0..9)
            .map(|index| {
                let file = if index == failing { &*readable } else { &*files[index] };
                Request::Write { file, slices: &slices, offset: 0, sync: WriteSync::Through }
            })
            .collect();
        let results = storage.perform(&requests);
        for (index, result) in results.iter().enumerate() {
            let found = fs::read(directory.path().join(index.to_string())).unwrap();
            assert_eq!(found.starts_with(text.as_bytes()), index != failing);
            match result {
                Ok(()) => assert_ne!(index, failing),
                Err(WalError::Io { operation: "writing", path, .. }) => {
                    assert_eq!((index, path), (failing, &directory.path().join(index.to_string())));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn what_is_not_aligned_is_refused_also_where_a_copy_of_it_would_be() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let files = create_files(&storage, 4, Access::ReadWriteDirect);
    if files[0].mode() != IoMode::Direct {
        say("SKIPPED: no direct I/O on the build's file system");
        return;
    }
    let bytes = AlignedBytes::patterned(2 * BLOCK, 1);
    let good: [&[u8]; 1] = [&bytes[..BLOCK]];
    let shifted: [&[u8]; 1] = [&bytes[8..BLOCK + 8]];
    let short: [&[u8]; 1] = [&bytes[..512]];
    let sync = WriteSync::Through;
    let results = storage.perform(&[
        Request::Write { file: &*files[0], slices: &shifted, offset: 0, sync },
        Request::Write { file: &*files[1], slices: &short, offset: 0, sync },
        Request::Write { file: &*files[2], slices: &good, offset: 8, sync },
        Request::Write { file: &*files[3], slices: &good, offset: 0, sync },
    ]);
    for refused in &results[..3] {
        assert!(matches!(refused, Err(WalError::InvalidArgument { .. })), "{refused:?}");
    }
    assert!(results[3].is_ok());
}

#[test]
fn more_requests_than_there_are_helpers_are_all_done() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let file = storage.create("file", SIZE, Access::ReadWrite).unwrap();
    let bytes: Vec<[u8; 4]> = (1..=300_u32).map(u32::to_le_bytes).collect();
    let slices: Vec<[&[u8]; 1]> = bytes.iter().map(|bytes| [&bytes[..]]).collect();
    let requests: Vec<Request<'_>> = slices
        .iter()
        .zip(0..)
        .flat_map(|(slices, index)| {
            let sync = if index % 3 == 0 { WriteSync::Through } else { WriteSync::None };
            [
                Request::Write { file: &*file, slices, offset: 5 * index, sync },
                Request::Sync { file: &*file },
            ]
        })
        .collect();
    let results = storage.perform(&requests);
    assert_eq!(results.len(), 600);
    results.into_iter().for_each(Result::unwrap);
    let found = fs::read(directory.path().join("file")).unwrap();
    for (bytes, place) in bytes.iter().zip(found.chunks(5)) {
        assert_eq!(place, [&bytes[..], &[0]].concat());
    }
}

#[test]
fn no_requests_have_no_results_and_one_has_its_own() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let [file] = &create_files(&storage, 1, Access::ReadWrite)[..] else { panic!("one file") };
    assert!(storage.perform(&[]).is_empty());
    let write =
        Request::Write { file: &**file, slices: &[b"alone"], offset: 3, sync: WriteSync::Through };
    assert!(matches!(storage.perform(&[write])[..], [Ok(())]));
    assert!(matches!(storage.perform(&[Request::Sync { file: &**file }])[..], [Ok(())]));
    assert_eq!(fs::read(directory.path().join("0")).unwrap()[..9], *b"\0\0\0alone\0");
    let readable = storage.open("0", Access::Read).unwrap();
    let refused =
        Request::Write { file: &*readable, slices: &[b"no"], offset: 0, sync: WriteSync::Through };
    assert!(matches!(storage.perform(&[refused])[..], [Err(WalError::Io { .. })]));
}

#[test]
fn threads_that_call_at_the_same_time_each_get_their_own_results() {
    const CALLERS: usize = 8;
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let together = Barrier::new(CALLERS);
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (storage, directory, together) = (&storage, directory.path(), &together);
            scope.spawn(move || {
                let names: Vec<String> = (0..6).map(|file| format!("{caller}-{file}")).collect();
                let files: Vec<Box<dyn StorageFile>> = names
                    .iter()
                    .map(|name| storage.create(name, SIZE, Access::ReadWrite).unwrap())
                    .collect();
                together.wait();
                for round in 0..20_u8 {
                    let slices: Vec<[u8; 3]> =
                        (0..6).map(|file| [u8::try_from(caller).unwrap(), file, round]).collect();
                    let slices: Vec<[&[u8]; 1]> = slices.iter().map(|s| [&s[..]]).collect();
                    let requests: Vec<Request<'_>> = files
                        .iter()
                        .zip(&slices)
                        .map(|(file, slices)| Request::Write {
                            file: &**file,
                            slices,
                            offset: 3 * u64::from(round),
                            sync: WriteSync::Through,
                        })
                        .collect();
                    storage.perform(&requests).into_iter().for_each(Result::unwrap);
                    for (name, slices) in names.iter().zip(&slices) {
                        let found = fs::read(directory.join(name)).unwrap();
                        let start = 3 * usize::from(round);
                        assert_eq!(found[start..start + 3], *slices[0]);
                    }
                }
            });
        }
    });
}

#[test]
fn a_file_of_somebody_elses_is_written_as_it_says_itself() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let files = create_files(&storage, 3, Access::ReadWrite);
    let foreign = Foreign::default();
    let write =
        |file| Request::Write { file, slices: &[b"bytes"], offset: 0, sync: WriteSync::Through };
    let results = storage.perform(&[
        write(&foreign),
        write(&*files[0]),
        Request::Sync { file: &foreign },
        write(&*files[1]),
        Request::Sync { file: &*files[2] },
    ]);
    results.into_iter().for_each(Result::unwrap);
    assert_eq!((foreign.writes.into_inner(), foreign.syncs.into_inner()), (1, 1));
    for name in ["0", "1"] {
        assert!(fs::read(directory.path().join(name)).unwrap().starts_with(b"bytes"));
    }
}

/// Otherwise a write could still be under way when the caller, or what unwinds it, reuses the
/// file.
#[test]
fn a_caller_that_panics_over_its_share_leaves_nothing_under_way() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let files = create_files(&storage, 6, Access::ReadWrite);
    let foreign = Foreign { panics: true, ..Foreign::default() };
    for round in [*b"one", *b"two"] {
        let slices: [&[u8]; 1] = [&round];
        let write =
            |file| Request::Write { file, slices: &slices, offset: 0, sync: WriteSync::Through };
        let mut requests = vec![write(&foreign as &dyn StorageFile)];
        requests.extend(files.iter().map(|file| write(&**file)));
        let panicked = catch_unwind(AssertUnwindSafe(|| storage.perform(&requests)));
        assert!(panicked.is_err());
        for index in 0..6 {
            let found = fs::read(directory.path().join(index.to_string())).unwrap();
            assert!(found.starts_with(&round), "{index} was not finished");
        }
    }
}

/// A file that only counts what is asked of it.
#[derive(Debug, Default)]
struct Foreign {
    writes: AtomicUsize,
    syncs: AtomicUsize,
    panics: bool,
}

impl StorageFile for Foreign {
    fn mode(&self) -> IoMode {
        IoMode::Buffered
    }

    fn size_bytes(&self) -> Result<u64> {
        Ok(0)
    }

    fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> Result<usize> {
        Ok(0)
    }

    fn write_at(&self, _slices: &[&[u8]], _offset: u64, _sync: WriteSync) -> Result<()> {
        assert!(!self.panics, "a file that panics when it is written");
        self.writes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn create_files(storage: &OsStorage, count: u8, access: Access) -> Vec<Box<dyn StorageFile>> {
    (0..count).map(|name| storage.create(&name.to_string(), SIZE, access).unwrap()).collect()
}
