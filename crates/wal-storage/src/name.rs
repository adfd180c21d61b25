//! Names inside the directory: relative, and unable to leave it.

use crate::error::{Result, WalError};

/// A checked name: components with `/` between them, none of them empty, `.` or `..`.
///
/// Only [`of_directory`](Self::of_directory) lets the empty name pass, which has no components
/// and stands for the log's directory itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name<'a>(&'a str);

impl<'a> Name<'a> {
    pub(crate) fn new(name: &'a str) -> Result<Self> {
        let refuse = |reason: &str| {
            Err(WalError::InvalidArgument {
                what: format!(
                    "{name:?} is no name inside a log's directory: {reason}; names are relative, \
                     with `/` between directory and file"
                ),
            })
        };
        for component in name.split('/') {
            match component {
                "" => return refuse("a part of it is empty"),
                "." | ".." => return refuse("`.` and `..` are not followed"),
                _ => {}
            }
            if component.contains('\0') {
                return refuse("it holds a NUL");
            }
            // Separators of other kinds there; elsewhere characters like any other.
            if cfg!(windows) && component.contains(['\\', ':']) {
                return refuse("backslash and colon are not allowed");
            }
        }
        Ok(Self(name))
    }

    pub(crate) fn of_directory(name: &'a str) -> Result<Self> {
        if name.is_empty() { Ok(Self(name)) } else { Self::new(name) }
    }

    pub(crate) fn components(self) -> impl Iterator<Item = &'a str> {
        self.0.split('/').filter(|component| !component.is_empty())
    }

    /// The directory that holds it, and the last component.
    pub(crate) fn split_last(self) -> (Self, &'a str) {
        match self.0.rsplit_once('/') {
            Some((directory, last)) => (Self(directory), last),
            None => (Self(""), self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for name in ["", "/", "/etc", "a//b", "a/", "..", "a/../b", "../a", ".", "./a", "a\0b"] {
            let error = Name::new(name).unwrap_err();
            assert!(matches!(error, WalError::InvalidArgument { .. }), "{name:?}: {error}");
        }
    }

    #[test]
    fn the_empty_name_is_a_directory_and_no_file() {
        assert_eq!(Name::of_directory("").unwrap().components().count(), 0);
        assert!(Name::of_directory("/").is_err());
    }

    #[test]
    fn a_name_splits_into_its_directory_and_its_last_part() {
        let name = Name::new("quarantine/core-0003/1.wal").unwrap();
        assert_eq!(name.split_last(), (Name("quarantine/core-0003"), "1.wal"));
        assert_eq!(Name::new("MANIFEST.0").unwrap().split_last(), (Name(""), "MANIFEST.0"));
        assert_eq!(name.components().collect::<Vec<_>>(), ["quarantine", "core-0003", "1.wal"]);
    }
}
