//! The names of a log's files: built and parsed in one place, and only one spelling is right.

use core::fmt;

/// What the names of core directories begin with.
pub const CORE_DIRECTORY_PREFIX: &str = "core-";

const SEGMENT_SUFFIX: &str = ".wal";
const TEMPORARY_PREFIX: &str = "next-";
const TEMPORARY_SUFFIX: &str = ".tmp";
const SEGMENT_DIGITS: usize = 20;
const CORE_DIGITS: usize = 4;

/// The directory of one core's segments: `core-0003`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreDirectory(
    /// The core.
    pub u16,
);

impl CoreDirectory {
    /// Reads such a name; `None` if it is anything else, or not spelled as we do.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_prefix(CORE_DIRECTORY_PREFIX)?;
        let canonical = digits.len() >= CORE_DIGITS
            && (digits.len() == CORE_DIGITS || !digits.starts_with('0'));
        if !canonical {
            return None;
        }
        number(digits)?.try_into().ok().map(Self)
    }
}

impl fmt::Display for CoreDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CORE_DIRECTORY_PREFIX}{:0CORE_DIGITS$}", self.0)
    }
}

/// A segment's file in its core's directory: `00000000000000000042.wal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentFile(
    /// The segment's number; never 0.
    pub u64,
);

impl SegmentFile {
    /// Reads such a name; `None` if it is anything else, or not spelled as we do.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        segment_number(name.strip_suffix(SEGMENT_SUFFIX)?).map(Self)
    }
}

impl fmt::Display for SegmentFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0SEGMENT_DIGITS$}{SEGMENT_SUFFIX}", self.0)
    }
}

/// A segment that is being prepared: `next-00000000000000000043.tmp`. What a crash leaves under
/// such a name is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TemporaryFile(
    /// Tells it from others, and no more: the number that it will have, or, of a file that is to be
    /// recycled, the one that it had.
    pub u64,
);

impl TemporaryFile {
    /// Reads such a name; `None` if it is anything else, or not spelled as we do.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(TEMPORARY_PREFIX)?;
        segment_number(rest.strip_suffix(TEMPORARY_SUFFIX)?).map(Self)
    }
}

impl fmt::Display for TemporaryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TEMPORARY_PREFIX}{:0SEGMENT_DIGITS$}{TEMPORARY_SUFFIX}", self.0)
    }
}

/// One of the two files of the manifest: `MANIFEST.0` and `MANIFEST.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ManifestSlot {
    /// `MANIFEST.0`
    Zero,
    /// `MANIFEST.1`
    One,
}

impl ManifestSlot {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::Zero, Self::One];

    /// The slot's file name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zero => "MANIFEST.0",
            Self::One => "MANIFEST.1",
        }
    }

    /// Reads such a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::BOTH.into_iter().find(|slot| slot.name() == name)
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Zero => Self::One,
            Self::One => Self::Zero,
        }
    }
}

impl fmt::Display for ManifestSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn segment_number(digits: &str) -> Option<u64> {
    if digits.len() != SEGMENT_DIGITS {
        return None;
    }
    number(digits).filter(|&segment_id| segment_id != 0)
}

/// `str::parse` would take a sign too.
fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;

    #[test]
    fn names_come_back_as_built() {
        for core in [0, 3, 9999, 10_000, u16::MAX] {
            let name = CoreDirectory(core).to_string();
            assert_eq!(CoreDirectory::parse(&name), Some(CoreDirectory(core)), "{name}");
        }
        for segment_id in [1, 42, u64::MAX] {
            let name = SegmentFile(segment_id).to_string();
            assert_eq!(SegmentFile::parse(&name), Some(SegmentFile(segment_id)), "{name}");
            let name = TemporaryFile(segment_id).to_string();
            assert_eq!(TemporaryFile::parse(&name), Some(TemporaryFile(segment_id)), "{name}");
        }
        for slot in ManifestSlot::BOTH {
            assert_eq!(ManifestSlot::parse(&slot.to_string()), Some(slot));
            assert_eq!(slot.other().other(), slot);
        }
    }

    #[test]
    fn names_look_as_documented() {
        assert_eq!(
            format!("{}/{}", CoreDirectory(3), SegmentFile(42)),
            "core-0003/00000000000000000042.wal"
        );
        assert_eq!(TemporaryFile(43).to_string(), "next-00000000000000000043.tmp");
        assert_eq!(CoreDirectory(12_345).to_string(), "core-12345");
    }

    #[test]
    fn other_spellings_are_not_ours() {
        for name in
            ["core-3", "core-00003", "core-99999", "core-+003", "core-", "Core-0003", "core-0003 "]
        {
            assert_eq!(CoreDirectory::parse(name), None, "{name}");
        }
        for name in [
            "42.wal",
            "00000000000000000000.wal",
            "00000000000000000042.WAL",
            "99999999999999999999.wal",
            "+0000000000000000042.wal",
            "000000000000000000042.wal",
        ] {
            assert_eq!(SegmentFile::parse(name), None, "{name}");
        }
        assert_eq!(TemporaryFile::parse("next-42.tmp"), None);
        assert_eq!(ManifestSlot::parse("MANIFEST.2"), None);
    }
}
