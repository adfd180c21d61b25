//! Schedules of operations that fail: which, how, and how much of them is done all the same.

use wal_sim::{Fault, OperationKind, Part};

use crate::random::{Random, mix};

/// Faults, each with the number of the workload's operation before which it is planned.
pub(crate) type Schedule = Vec<(usize, Fault)>;

/// The schedule of a seed, for a workload of so many operations.
pub(crate) fn draw(seed: u64, operations: usize) -> Schedule {
    let mut random = Random::new(mix(seed, 0xFA17));
    let count = random.pick([1, 1, 1, 2, 3]);
    let one = |random: &mut Random| {
        // The opening comes before the first operation.
        let before = if random.chance(20) { 0 } else { random.size(operations + 1) };
        (before, draw_one(random))
    };
    (0..count).map(|_| one(&mut random)).collect()
}

fn draw_one(random: &mut Random) -> Fault {
    let fault = match random.below(10) {
        0..=2 => Fault::on(OperationKind::Write),
        3..=5 => Fault::on(OperationKind::Sync),
        6 => Fault::on(OperationKind::SyncDirectory),
        7 => Fault::on(random.pick([
            OperationKind::Create,
            OperationKind::CreateReserved,
            OperationKind::Rename,
            OperationKind::Remove,
            OperationKind::Read,
            OperationKind::Open,
        ])),
        8 => Fault::on_any_change(),
        _ => Fault::on_any(),
    };
    let fault = fault.nth(random.pick([0, 0, 1, 2, 5, 20]).min(random.below(30)));
    let fault = if random.chance(25) { fault.sticky() } else { fault };
    let fault = if random.chance(15) { fault.storage_full() } else { fault };
    match random.below(5) {
        0 => fault.done(Part::Nothing),
        1 => fault.done(Part::Prefix),
        2 => fault.done(Part::Random),
        3 => fault.done(Part::Everything),
        _ => fault,
    }
}

/// Something fails that recovery asks for, which only reads.
pub(crate) fn draw_of_reading(random: &mut Random) -> Fault {
    let kinds =
        [OperationKind::Read, OperationKind::Read, OperationKind::Open, OperationKind::List];
    let fault = Fault::on(random.pick(kinds)).nth(random.pick([0, 1, 2, 5, 9]));
    if random.chance(25) { fault.sticky() } else { fault }
}
