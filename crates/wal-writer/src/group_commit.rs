//! When a commit begins for those who wait for a ticket.

use std::time::Duration;

use wal_storage::{Result, WalError};

/// When the entries that somebody waits for are made durable: as soon as the disk is free, unless
/// told to wait for company.
///
/// A commit begins when the disk is free and the first of its entries has waited for `max_delay`,
/// or `max_bytes` or `max_entries` wait. With a `max_delay` of zero, the default, the other two
/// mean nothing: while one commit is on its way to the disk the next one gathers, so the busier
/// the log, the larger its commits, all by itself.
///
/// [`sync`](crate::CoreWalWriter::sync), [`SyncRequest::run`](crate::SyncRequest::run) and
/// [`Wal::sync_all`](crate::Wal::sync_all) never wait; this is about tickets.
///
/// ```
/// use std::time::Duration;
/// use wal_writer::GroupCommit;
///
/// // A disk that is paid for by the operation, and clients that do not mind two milliseconds.
/// let policy = GroupCommit { max_delay: Duration::from_millis(2), ..GroupCommit::default() };
/// assert_eq!(policy.max_entries, u64::MAX);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupCommit {
    /// How long an entry may wait for others before a commit begins; zero unless set.
    ///
    /// Raise it where a sync is dear: on disks that wear by the write or are billed by the
    /// operation, or where other programs need the device. Each ticket then takes up to this much
    /// longer, and throughput does not rise for clients that wait for one ticket before they
    /// append again. Leave it at zero to have the least latency.
    pub max_delay: Duration,
    /// How many bytes of the log may wait before a commit begins all the same; no limit unless
    /// set.
    ///
    /// Set it, beside a `max_delay`, to about what the device writes in the time of one sync (some
    /// hundred kilobytes): a commit of that size gains nothing by growing.
    pub max_bytes: u64,
    /// How many entries may wait before a commit begins all the same; no limit unless set.
    ///
    /// Set it, beside a `max_delay`, to the number of clients, if that is known: once all of them
    /// wait, nobody is left to wait for.
    pub max_entries: u64,
}

impl Default for GroupCommit {
    fn default() -> Self {
        Self { max_delay: Duration::ZERO, max_bytes: u64::MAX, max_entries: u64::MAX }
    }
}

/// More is a mistake: whoever waits so long for a ticket believes that the log hangs.
const DELAY_MAX: Duration = Duration::from_secs(60);

impl GroupCommit {
    /// # Errors
    ///
    /// [`WalError::InvalidArgument`] for a delay of more than a minute.
    pub(crate) fn check(&self) -> Result<()> {
        if self.max_delay <= DELAY_MAX {
            return Ok(());
        }
        Err(WalError::InvalidArgument {
            what: format!(
                "group commit's max_delay is {:?}; it must be at most {DELAY_MAX:?}",
                self.max_delay
            ),
        })
    }
}
