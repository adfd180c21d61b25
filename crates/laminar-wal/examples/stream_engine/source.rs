//! Events that come in order and can be read again from any offset, as from a partition of a
//! message broker.

/// How many events each source has.
pub(crate) const EVENTS: u64 = 100_000;

const USERS: u64 = 5_000;

/// Something that a user did.
pub(crate) struct Event {
    pub(crate) user: u64,
    pub(crate) time_ms: i64,
}

/// The name under which commits keep a core's offset.
pub(crate) fn name(core: u16) -> String {
    format!("clicks-{core}")
}

/// The events of a core's source from an offset on; the first one has offset 0.
pub(crate) fn read(core: u16, offset: u64) -> impl Iterator<Item = Event> {
    (offset..EVENTS).map(move |offset| Event {
        user: (offset ^ u64::from(core)).wrapping_mul(0x9E37_79B9_7F4A_7C15) % USERS,
        time_ms: 1_000 + i64::try_from(offset).unwrap_or(i64::MAX),
    })
}
