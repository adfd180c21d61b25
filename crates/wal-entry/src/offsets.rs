//! How far each source was read: the map inside a commit.

use std::fmt;

/// How far each source was read, sorted by source name, each source once.
///
/// A sorted list rather than a hash map: equal offsets must have equal bytes on disk, and a hash
/// map has no order to rely on. Commits name few sources, so a list is also the smaller and faster
/// of the two.
///
/// ```
/// use wal_entry::Offsets;
///
/// let mut offsets = Offsets::new();
/// offsets.set("orders-1", 40);
/// offsets.set("orders-0", 17);
/// offsets.set("orders-1", 41);
/// assert_eq!(offsets.get("orders-1"), Some(41));
/// assert!(offsets.iter().eq([("orders-0", 17), ("orders-1", 41)]));
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, rkyv::Archive, rkyv::Serialize)]
pub struct Offsets {
    /// Sorted by name, no name twice: `set` and `try_from_pairs` are the only ways in.
    pairs: Vec<(String, u64)>,
}

impl Offsets {
    /// No sources.
    pub const fn new() -> Self {
        Self { pairs: Vec::new() }
    }

    /// The offsets of `pairs`, which may come in any order.
    ///
    /// # Errors
    ///
    /// [`DuplicateSource`] if a source is named twice: which of its offsets is meant, only the
    /// caller can know.
    ///
    /// ```
    /// use wal_entry::Offsets;
    ///
    /// assert!(Offsets::try_from_pairs([("b", 2), ("a", 1)]).is_ok());
    /// let error = Offsets::try_from_pairs([("a", 1), ("a", 2)]).unwrap_err();
    /// assert_eq!(error.source_name, "a");
    /// ```
    pub fn try_from_pairs<S, I>(pairs: I) -> Result<Self, DuplicateSource>
    where
        S: Into<String>,
        I: IntoIterator<Item = (S, u64)>,
    {
        let mut pairs: Vec<(String, u64)> =
            pairs.into_iter().map(|(source, offset)| (source.into(), offset)).collect();
        pairs.sort_unstable();
        for pair in pairs.windows(2) {
            if let [(first, _), (second, _)] = pair
                && first == second
            {
                return Err(DuplicateSource { source_name: first.clone() });
            }
        }
        Ok(Self { pairs })
    }

    /// Sets the offset of `source`, replacing an earlier one.
    ///
    /// Allocates nothing when the source is already there, so one `Offsets` can be kept and reused
    /// for every commit.
    pub fn set(&mut self, source: &str, offset: u64) {
        match self.find(source) {
            Ok(index) => {
                if let Some(pair) = self.pairs.get_mut(index) {
                    pair.1 = offset;
                }
            }
            Err(index) => self.pairs.insert(index, (source.to_owned(), offset)),
        }
    }

    /// The offset of `source`.
    pub fn get(&self, source: &str) -> Option<u64> {
        let index = self.find(source).ok()?;
        self.pairs.get(index).map(|(_, offset)| *offset)
    }

    /// Every source with its offset, sorted by source name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, u64)> + Clone {
        self.pairs.iter().map(|(source, offset)| (source.as_str(), *offset))
    }

    /// The number of sources.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether no source is named.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The place of `source`, or the place where it would be inserted.
    fn find(&self, source: &str) -> Result<usize, usize> {
        self.pairs.binary_search_by(|(name, _)| name.as_str().cmp(source))
    }

    /// For the view, whose pairs were checked to be sorted and free of duplicates.
    pub(crate) fn from_checked_pairs(pairs: Vec<(String, u64)>) -> Self {
        debug_assert!(pairs.is_sorted_by(|(a, _), (b, _)| a < b));
        Self { pairs }
    }
}

impl ArchivedOffsets {
    /// Every source with its offset, in the order in which they stand.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, u64)> + Clone {
        self.pairs.iter().map(|pair| (pair.0.as_str(), pair.1.to_native()))
    }

    /// The number of sources.
    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// The offset of `source`, if the sources are sorted by name.
    pub(crate) fn get(&self, source: &str) -> Option<u64> {
        let index = self.pairs.binary_search_by(|pair| pair.0.as_str().cmp(source)).ok()?;
        self.pairs.get(index).map(|pair| pair.1.to_native())
    }
}

/// A map from source to offset.
impl fmt::Debug for Offsets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// A source was given two offsets at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("source {source_name:?} is named twice in one set of offsets")]
pub struct DuplicateSource {
    /// The source that was named twice.
    pub source_name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_sorted_whatever_order_they_came_in() {
        let given = Offsets::try_from_pairs([("c", 3), ("a", 1), ("b", 2)]).unwrap();
        let mut set = Offsets::new();
        set.set("b", 2);
        set.set("c", 0);
        set.set("a", 1);
        set.set("c", 3);
        assert_eq!(given, set);
        assert_eq!(given.iter().collect::<Vec<_>>(), [("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!((given.len(), given.is_empty()), (3, false));
        assert_eq!((given.get("b"), given.get("d")), (Some(2), None));
    }

    #[test]
    fn a_source_named_twice_is_an_error_even_with_one_offset() {
        for second in [1, 2] {
            let error = Offsets::try_from_pairs([("a", 1), ("b", 1), ("a", second)]).unwrap_err();
            assert_eq!(error, DuplicateSource { source_name: "a".to_owned() });
            assert_eq!(error.to_string(), "source \"a\" is named twice in one set of offsets");
        }
    }
}
