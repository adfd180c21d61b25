//! Files: what is written is read back, in each mode, and each mode is the one the machine allows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may do what tests may"
)]

mod common;

use std::fs::{self, File};
use std::path::Path;

use common::{AlignedBytes, directory_in_memory, directory_on_disk, say};
use wal_storage::{
    Access, DIRECT_BLOCK_BYTES, IoMode, OsStorage, Storage, StorageFile, WalError, WriteSync,
};

const SIZE: u64 = 1024 * 1024;
const BLOCK: u64 = DIRECT_BLOCK_BYTES as u64;

#[test]
fn a_buffered_file_gives_back_what_was_written() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let file = storage.create("file", SIZE, Access::ReadWrite).unwrap();
    assert_eq!(file.mode(), IoMode::Buffered);
    round_trip(&storage, file, Access::ReadWrite);
}

#[test]
fn a_direct_file_gives_back_what_was_written() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let file = storage.create("file", SIZE, Access::ReadWriteDirect).unwrap();
    assert_mode_is_what_the_machine_allows(&*file, &directory.path().join("file"));
    round_trip(&storage, file, Access::ReadWriteDirect);
}

#[test]
fn a_direct_file_in_memory_gives_back_what_was_written() {
    let Some(directory) = directory_in_memory() else {
        return;
    };
    let storage = OsStorage::open(directory.path()).unwrap();
    let file = storage.create("file", SIZE, Access::ReadWriteDirect).unwrap();
    assert_mode_is_what_the_machine_allows(&*file, &directory.path().join("file"));
    round_trip(&storage, file, Access::ReadWriteDirect);
}

#[test]
fn an_opened_file_gets_the_same_mode_as_a_created_one() {
    for directory in [Some(directory_on_disk()), directory_in_memory()].into_iter().flatten() {
        let storage = OsStorage::open(directory.path()).unwrap();
        let created = storage.create("file", SIZE, Access::ReadWriteDirect).unwrap();
        let opened = storage.open("file", Access::ReadWriteDirect).unwrap();
        assert_eq!(created.mode(), opened.mode());
        assert_eq!(storage.open("file", Access::ReadWrite).unwrap().mode(), IoMode::Buffered);
        assert_eq!(storage.open("file", Access::Read).unwrap().mode(), IoMode::Buffered);
    }
}

#[test]
fn a_file_of_no_whole_number_of_blocks_is_buffered() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let file = storage.create("odd", BLOCK + 7, Access::ReadWriteDirect).unwrap();
    assert_eq!(file.mode(), IoMode::Buffered);
    assert_eq!(file.size_bytes().unwrap(), BLOCK + 7);
    let opened = storage.open("odd", Access::ReadWriteDirect).unwrap();
    assert_eq!(opened.mode(), IoMode::Buffered);
}

#[test]
fn a_created_file_has_its_size_in_zeroes_that_take_space() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    for (name, size, access) in [
        ("empty", 0, Access::ReadWriteDirect),
        ("one-block", BLOCK, Access::ReadWriteDirect),
        ("odd", 300_001, Access::ReadWrite),
        ("large", 3 * SIZE + BLOCK, Access::ReadWriteDirect),
    ] {
        for reserved in [false, true] {
            let name = &format!("{name}-{reserved}");
            let file = match reserved {
                false => storage.create(name, size, access).unwrap(),
                true => storage.create_reserved(name, size, access).unwrap(),
            };
            file.sync().unwrap();
            assert_eq!(file.size_bytes().unwrap(), size);
            let bytes = fs::read(directory.path().join(name)).unwrap();
            assert_eq!(bytes.len() as u64, size);
            assert!(bytes.iter().all(|byte| *byte == 0));
            assert_takes_space(&directory.path().join(name), size);
        }
    }
}

#[test]
fn a_direct_file_refuses_what_is_not_aligned() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let file = storage.create("file", SIZE, Access::ReadWriteDirect).unwrap();
    if file.mode() != IoMode::Direct {
        say("SKIPPED: no direct I/O on the build's file system");
        return;
    }
    let block = DIRECT_BLOCK_BYTES;
    let mut bytes = AlignedBytes::patterned(2 * block, 1);
    for sync in [WriteSync::None, WriteSync::Through] {
        refused(file.write_at(&[&bytes[1..=block]], 0, sync));
        refused(file.write_at(&[&bytes[..512]], 0, sync));
        refused(file.write_at(&[&bytes[..block]], 512, sync));
        refused(file.write_at(&[&bytes[..block], &bytes[block..block + 8]], 0, sync));
    }
    refused(file.read_at(&mut bytes[8..block + 8], 0));
    refused(file.read_at(&mut bytes[..8], 0));
    refused(file.read_at(&mut bytes[..block], 8));

    let mut found = AlignedBytes::zeroed(2 * block);
    assert_eq!(file.read_at(&mut found, 0).unwrap(), 2 * block);
    assert!(found.iter().all(|byte| *byte == 0), "a refused write wrote something");
}

#[test]
fn an_offset_beyond_any_file_is_refused_and_wraps_nowhere() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let file = storage.create("file", SIZE, Access::ReadWrite).unwrap();
    for offset in [u64::MAX, u64::MAX - 4, 1 << 63, i64::MAX.unsigned_abs()] {
        refused(file.write_at(&[b"bytes"], offset, WriteSync::None));
        refused(file.read_at(&mut [0; 5], offset));
    }
    assert_eq!(file.size_bytes().unwrap(), SIZE);
}

#[test]
fn nothing_to_write_is_no_error() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    for access in [Access::ReadWrite, Access::ReadWriteDirect] {
        let file = storage.create("file", BLOCK, access).unwrap();
        for sync in [WriteSync::None, WriteSync::Through] {
            file.write_at(&[], 0, sync).unwrap();
            file.write_at(&[&[], &[]], BLOCK, sync).unwrap();
        }
        assert_eq!(file.read_at(&mut [], 0).unwrap(), 0);
        assert_eq!(file.size_bytes().unwrap(), BLOCK);
        storage.remove("file").unwrap();
    }
}

#[test]
fn more_slices_than_one_call_takes_are_written_in_order() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let bytes: Vec<u8> = (0..5000_u32).flat_map(u32::to_le_bytes).collect();
    let slices: Vec<&[u8]> = bytes.chunks(7).collect();
    assert!(slices.len() > 2048);
    for (name, sync) in [("plain", WriteSync::None), ("through", WriteSync::Through)] {
        let file = storage.create(name, SIZE, Access::ReadWrite).unwrap();
        file.write_at(&slices, 13, sync).unwrap();
        let written = fs::read(directory.path().join(name)).unwrap();
        assert_eq!(written[13..13 + bytes.len()], bytes);
        assert!(written[..13].iter().chain(&written[13 + bytes.len()..]).all(|byte| *byte == 0));
    }
}

#[test]
fn a_read_past_the_end_stops_there() {
    for directory in [Some(directory_on_disk()), directory_in_memory()].into_iter().flatten() {
        let storage = OsStorage::open(directory.path()).unwrap();
        for access in [Access::Read, Access::ReadWrite, Access::ReadWriteDirect] {
            let bytes = AlignedBytes::patterned(3 * DIRECT_BLOCK_BYTES, 2);
            fs::write(directory.path().join("file"), &*bytes).unwrap();
            let file = storage.open("file", access).unwrap();
            let mut found = AlignedBytes::zeroed(8 * DIRECT_BLOCK_BYTES);
            assert_eq!(file.read_at(&mut found, BLOCK).unwrap(), 2 * DIRECT_BLOCK_BYTES);
            assert_eq!(found[..2 * DIRECT_BLOCK_BYTES], bytes[DIRECT_BLOCK_BYTES..], "{access:?}");
            assert_eq!(file.read_at(&mut found, 3 * BLOCK).unwrap(), 0);
            assert_eq!(file.read_at(&mut found, 300 * BLOCK).unwrap(), 0);
        }
    }
}

#[test]
fn a_direct_read_of_a_file_that_was_cut_inside_a_block_ends_there() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let file = storage.create("file", 4 * BLOCK, Access::ReadWriteDirect).unwrap();
    let cut = File::options().write(true).open(directory.path().join("file")).unwrap();
    for end in [1, 511, 512, BLOCK - 1, BLOCK + 1, 2 * BLOCK + 512] {
        cut.set_len(end).unwrap();
        let mut found = AlignedBytes::patterned(4 * DIRECT_BLOCK_BYTES, 9);
        let count = file.read_at(&mut found, 0).unwrap();
        assert_eq!(count as u64, end, "in mode {:?}", file.mode());
        assert!(found[..count].iter().all(|byte| *byte == 0));
        cut.set_len(4 * BLOCK).unwrap();
    }
}

#[test]
fn a_file_is_not_created_for_reading_alone() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    refused(storage.create("file", 4096, Access::Read));
    assert!(storage.list("").unwrap().is_empty());
}

#[test]
fn a_file_that_exists_is_not_created_again_and_keeps_its_bytes() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    fs::write(directory.path().join("file"), "precious").unwrap();
    let error = storage.create("file", 4096, Access::ReadWrite).unwrap_err();
    assert!(matches!(&error, WalError::Io { source, .. }
        if source.kind() == std::io::ErrorKind::AlreadyExists));
    assert_eq!(fs::read(directory.path().join("file")).unwrap(), b"precious");
}

fn round_trip(storage: &OsStorage, file: Box<dyn StorageFile>, access: Access) {
    let bytes = AlignedBytes::patterned(5 * DIRECT_BLOCK_BYTES, 3);
    let (head, rest) = bytes.split_at(DIRECT_BLOCK_BYTES);
    let (middle, tail) = rest.split_at(3 * DIRECT_BLOCK_BYTES);
    file.write_at(&[head, middle], BLOCK, WriteSync::None).unwrap();
    file.write_at(&[&[], tail], 5 * BLOCK, WriteSync::Through).unwrap();
    file.sync().unwrap();
    assert_eq!(file.size_bytes().unwrap(), SIZE);
    let mode = file.mode();
    drop(file);

    for access in [access, Access::Read] {
        let file = storage.open("file", access).unwrap();
        let mut found = AlignedBytes::patterned(7 * DIRECT_BLOCK_BYTES, 77);
        assert_eq!(file.read_at(&mut found, 0).unwrap(), found.len());
        assert!(found[..DIRECT_BLOCK_BYTES].iter().all(|byte| *byte == 0));
        assert!(found[DIRECT_BLOCK_BYTES..6 * DIRECT_BLOCK_BYTES] == *bytes, "{mode:?}");
        assert!(found[6 * DIRECT_BLOCK_BYTES..].iter().all(|byte| *byte == 0));
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, WalError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, WalError::InvalidArgument { .. }), "{error}");
}

/// Asks the machine in another way than the code under test does: `statx` by path, and a direct
/// read through a descriptor that was opened for it.
#[cfg(target_os = "linux")]
fn assert_mode_is_what_the_machine_allows(file: &dyn StorageFile, path: &Path) {
    use std::os::unix::fs::{FileExt, OpenOptionsExt};

    use rustix::fs::{AtFlags, CWD, OFlags, StatxFlags, statx};

    let status = statx(CWD, path, AtFlags::empty(), StatxFlags::DIOALIGN).unwrap();
    let block = u32::try_from(DIRECT_BLOCK_BYTES).unwrap();
    let named = status.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    let fits = [status.stx_dio_mem_align, status.stx_dio_offset_align]
        .into_iter()
        .all(|alignment| alignment > 0 && block.is_multiple_of(alignment));
    let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap();
    let readable = File::options()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .and_then(|direct| direct.read_at(&mut AlignedBytes::zeroed(DIRECT_BLOCK_BYTES), 0))
        .is_ok();

    say(&format!(
        "{}: {:?} (alignments named: {named}, memory {}, offset {}; a direct read works: \
         {readable})",
        path.display(),
        file.mode(),
        status.stx_dio_mem_align,
        status.stx_dio_offset_align
    ));
    let expected = if named && fits && readable { IoMode::Direct } else { IoMode::Buffered };
    assert_eq!(file.mode(), expected);
    assert_eq!(descriptor_is_direct(path), expected == IoMode::Direct);
}

/// Whether this process has `path` open for direct I/O, as the kernel tells it.
#[cfg(target_os = "linux")]
fn descriptor_is_direct(path: &Path) -> bool {
    let path = fs::canonicalize(path).unwrap();
    let direct = rustix::fs::OFlags::DIRECT.bits();
    fs::read_dir("/proc/self/fd").unwrap().flatten().any(|descriptor| {
        fs::read_link(descriptor.path()).is_ok_and(|target| target == path)
            && fs::read_to_string(Path::new("/proc/self/fdinfo").join(descriptor.file_name()))
                .is_ok_and(|info| {
                    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
                    u32::from_str_radix(flags.unwrap().trim(), 8).unwrap() & direct != 0
                })
    })
}

#[cfg(not(target_os = "linux"))]
fn assert_mode_is_what_the_machine_allows(file: &dyn StorageFile, path: &Path) {
    say(&format!("{}: {:?}", path.display(), file.mode()));
    assert_eq!(file.mode(), IoMode::Buffered);
}

#[cfg(unix)]
fn assert_takes_space(path: &Path, size: u64) {
    use std::os::unix::fs::MetadataExt;

    let taken = fs::metadata(path).unwrap().blocks() * 512;
    assert!(taken >= size, "{}: {taken} of {size} bytes", path.display());
}

#[cfg(not(unix))]
fn assert_takes_space(_path: &Path, _size: u64) {}
