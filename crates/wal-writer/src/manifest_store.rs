//! The two manifest slots on disk: always brought up to the same manifest, one after the other.

use std::sync::PoisonError;

use wal_format::{MANIFEST_SLOT_BYTES, Manifest, ManifestSlot};
use wal_storage::{Access, Result, Storage, StorageFile, WalError, WriteSync};

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};

#[derive(Debug)]
pub(crate) struct ManifestStore {
    /// The number of the newest durable manifest, for those who only need to name it.
    number: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    manifest: Manifest,
    slots: Vec<SlotFile>,
    /// A replacement failed: which manifest a crash would leave is unknown, so no more.
    failed: Option<WalError>,
}

#[derive(Debug)]
struct SlotFile {
    file: Box<dyn StorageFile>,
    size_bytes: u64,
}

impl ManifestStore {
    /// Writes `manifest` to both slots, `first` first, so that it is durable in both before
    /// anything names it. Slots that are missing are made.
    ///
    /// # Errors
    ///
    /// Whatever the storage says; at least one slot is then as it was, or holds `manifest`.
    pub(crate) fn open(
        storage: &dyn Storage,
        manifest: Manifest,
        first: ManifestSlot,
    ) -> Result<Self> {
        let bytes = encode(&manifest)?;
        let mut slots = Vec::new();
        for slot in [first, first.other()] {
            let mut slot = SlotFile::open_or_create(storage, slot)?;
            slot.grow_to(bytes.len())?;
            slot.write(&bytes)?;
            slots.push(slot);
        }
        let number = AtomicU64::new(manifest.number);
        Ok(Self { number, inner: Mutex::new(Inner { manifest, slots, failed: None }) })
    }

    /// The number of the newest durable manifest.
    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// What the manifest says now.
    pub(crate) fn manifest(&self) -> Manifest {
        self.lock().manifest.clone()
    }

    /// Makes a changed manifest durable in both slots.
    ///
    /// # Errors
    ///
    /// What `change` says, and [`WalError::StorageFull`] if it needs more room than there is:
    /// nothing has changed then. Anything else is [final](Self::failure): every core must be
    /// poisoned.
    pub(crate) fn replace(&self, change: impl FnOnce(&mut Manifest) -> Result<()>) -> Result<()> {
        let mut inner = self.lock();
        if let Some(cause) = &inner.failed {
            return Err(cause.clone());
        }
        let mut next = inner.manifest.clone();
        change(&mut next)?;
        next.number += 1;
        let bytes = encode(&next)?;
        // Room first, behind the bytes that count, so that a full disk destroys nothing.
        let written = inner
            .slots
            .iter_mut()
            .try_for_each(|slot| slot.grow_to(bytes.len()))
            .and_then(|()| inner.slots.iter().try_for_each(|slot| slot.write(&bytes)));
        if let Err(cause) = written {
            if !cause.is_storage_full() {
                inner.failed = Some(cause.clone());
            }
            return Err(cause);
        }
        self.number.store(next.number, Ordering::Release);
        inner.manifest = next;
        Ok(())
    }

    /// Why the manifest cannot be replaced any more.
    pub(crate) fn failure(&self) -> Option<WalError> {
        self.lock().failed.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlotFile {
    fn open_or_create(storage: &dyn Storage, slot: ManifestSlot) -> Result<Self> {
        let file = match storage.open(slot.name(), Access::ReadWrite) {
            Err(error) if error.is_not_found() => {
                storage.create(slot.name(), MANIFEST_SLOT_BYTES, Access::ReadWrite)?
            }
            opened => opened?,
        };
        let size_bytes = file.size_bytes()?;
        let mut slot = Self { file, size_bytes };
        // A crash may have cut the making of the file short.
        slot.grow_to(1)?;
        Ok(slot)
    }

    /// Gives the file room for `bytes` without touching what it holds.
    fn grow_to(&mut self, bytes: usize) -> Result<()> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let wanted = bytes.next_multiple_of(MANIFEST_SLOT_BYTES);
        if self.size_bytes < wanted {
            let missing = usize::try_from(wanted - self.size_bytes).unwrap_or(usize::MAX);
            self.file.write_at(&[&vec![0; missing]], self.size_bytes, WriteSync::None)?;
            self.file.sync()?;
            self.size_bytes = wanted;
        }
        Ok(())
    }

    /// Writes over what the slot holds, durably.
    ///
    /// A full disk is as final here as any other failure: the room was there, and what the slot
    /// holds now is unknown. So this never says `StorageFull`, which would mean that nothing has
    /// changed.
    fn write(&self, bytes: &[u8]) -> Result<()> {
        self.file.write_at(&[bytes], 0, WriteSync::None).map_err(|error| match error {
            WalError::StorageFull { path, operation, .. } => {
                WalError::io(path, operation, std::io::ErrorKind::StorageFull.into())
            }
            other => other,
        })?;
        self.file.sync()
    }
}

fn encode(manifest: &Manifest) -> Result<Vec<u8>> {
    manifest.encode().ok_or_else(|| WalError::InvalidArgument {
        what: "the manifest would be 4 GiB or more: too many source offsets in the checkpoint"
            .into(),
    })
}
