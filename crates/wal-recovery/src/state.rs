//! What a replay comes to: the last change of each key, and how far the inputs were read.

use std::collections::BTreeMap;

use wal_storage::Result;

use crate::committed::Committed;
use crate::replay::Recovery;

/// What the replayed entries come to, for applications whose state is a map: apply it to the
/// snapshot that the checkpoint stands for, or to nothing if there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveredState {
    /// The last value of each key that was put or deleted; `None` if it was deleted last.
    pub changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// What the commits come to: where to read the sources on from, if there was one. What no
    /// commit names, the checkpoint may.
    pub committed: Committed,
    /// The highest epoch of any entry; `None` if there was none.
    pub last_epoch: Option<u64>,
    /// How many entries were replayed.
    pub entries: u64,
}

impl Recovery {
    /// Replays everything into a map in memory.
    ///
    /// # Errors
    ///
    /// As for [`for_each`](Self::for_each).
    pub fn into_state(self) -> Result<RecoveredState> {
        let mut state = RecoveredState::default();
        self.for_each(|entry| {
            state.entries += 1;
            state.last_epoch = state.last_epoch.max(Some(entry.epoch()));
            state.committed.note_entry(&entry);
            if let Some(key) = entry.key() {
                let value = entry.value().map(<[u8]>::to_vec);
                match state.changes.get_mut(key) {
                    Some(known) => *known = value,
                    None => {
                        state.changes.insert(key.to_vec(), value);
                    }
                }
            }
        })?;
        Ok(state)
    }
}
