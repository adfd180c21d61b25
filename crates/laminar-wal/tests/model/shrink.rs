//! Making the story of a failure short: every operation that can be left out is.

use crate::operations::Story;
use crate::{Place, outcome};

/// How often the story may be told again.
const TRIES_MAX: u32 = 2000;

/// The shortest story found that still fails, and how it does.
pub(crate) fn shrink(place: Place, mut story: Story, mut what: String) -> (Story, String) {
    // Each try may panic, as the failure did; one report of it is enough.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut tries = 0;
    let mut piece = story.operations.len().div_ceil(2);
    while piece > 0 && tries < TRIES_MAX {
        let mut at = 0;
        let length_before = story.operations.len();
        while at < story.operations.len() && tries < TRIES_MAX {
            let mut shorter = story.clone();
            let end = (at + piece).min(shorter.operations.len());
            shorter.operations.drain(at..end);
            tries += 1;
            match outcome(place, &shorter) {
                Err(still) => (story, what) = (shorter, still),
                Ok(()) => at = end,
            }
        }
        // What could not be missed before may be now, when others are gone.
        if piece > 1 || story.operations.len() == length_before {
            piece /= 2;
        }
    }
    if story.fault.is_some() {
        let healthy = Story { fault: None, ..story.clone() };
        if let Err(still) = outcome(place, &healthy) {
            (story, what) = (healthy, still);
        }
    }
    std::panic::set_hook(hook);
    (story, what)
}
