//! The verdict on the end of a segment: a table of labelled rows, each with its crash story in
//! `docs/recovery.md`.
//!
//! The table is data. [`judge`] looks a row up, and the test below goes through every combination
//! of evidence and finds that exactly one row matches it.

use std::fmt;

/// Which row of the table decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Label {
    /// Zeroes, and nothing proves that anything was there: the end.
    A,
    /// Something unreadable, and nothing proves that it was ever durable: torn.
    B,
    /// Something unreadable that was durable: damage.
    C,
    /// The checksum is right and the content is not understood: an error.
    D,
    /// Epoch or timestamp falls: damage.
    E,
    /// A seal, a cut, or no segment at all: the next segment decides.
    F,
    /// A later life of the log decided that the segment ends here.
    G,
    /// The file is not what its name says: damage.
    H,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{self:?}")
    }
}

/// What was found where a segment's records end, at position p.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// The segment's identity is readable and its own, and the file as long as it says.
    pub(crate) identity_is_valid: bool,
    pub(crate) at: At,
    /// A later segment of the chain begins at p.
    pub(crate) chain_goes_on: bool,
    /// The largest claim lies above p.
    pub(crate) claim_is_above: bool,
    /// A mark of this life stands behind p.
    pub(crate) mark_is_behind: bool,
    pub(crate) following: Following,
}

/// What stands at p.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// Zeroes from p to the end of its block; also the file's end.
    Zeroes,
    /// Anything else but a valid record with the expected sequence.
    Unreadable,
    NotUnderstood,
    Falls,
    Seal,
    /// The log was cut at p, and no segment continues it yet.
    Cut,
    /// No segment has a valid start; p is where the log begins.
    NoSegment,
}

/// The files above the last segment of the chain, none of which has a valid start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Following {
    /// There is none.
    Absent,
    /// Start and vouch blocks are zero, and no record of its life stands behind them.
    Unused,
    /// Something was written into one of them, and its start is not valid.
    Torn,
    /// There are some, but not the one with the next number, or not all from there to the highest. A
    /// file gets its name only after the one before it has its own, durably, and a name is never
    /// absent again: what is missing was there.
    Gap,
}

/// What is to be done about the end of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The log goes on in the next segment of the chain.
    GoOn,
    /// The log ends here, and nothing was lost that anybody knows of.
    End,
    /// The log ends here; something unfinished behind it is dropped and counted.
    Torn,
    /// Damage, or bytes that we do not understand: an error.
    Error,
}

/// A row of the table: what it matches, and what it decides.
struct Row {
    label: Label,
    identity_is_valid: bool,
    at: &'static [At],
    /// `None` matches both.
    chain_goes_on: Option<bool>,
    claim_is_above: Option<bool>,
    mark_is_behind: Option<bool>,
    following: &'static [Following],
    decision: Decision,
}

const EVERYTHING: &[At] =
    &[At::Zeroes, At::Unreadable, At::NotUnderstood, At::Falls, At::Seal, At::Cut, At::NoSegment];
const ANY_FOLLOWING: &[Following] =
    &[Following::Absent, Following::Unused, Following::Torn, Following::Gap];
const NO_GAP: &[Following] = &[Following::Absent, Following::Unused, Following::Torn];

/// Matches everything in a segment that is what it should be, and decides that it is an error (@H);
/// rows say what they want otherwise.
const ANY: Row = Row {
    label: Label::H,
    identity_is_valid: true,
    at: EVERYTHING,
    chain_goes_on: None,
    claim_is_above: None,
    mark_is_behind: None,
    following: ANY_FOLLOWING,
    decision: Decision::Error,
};

/// Matches what is unproven at the last end of the chain.
const LAST: Row = Row { chain_goes_on: Some(false), claim_is_above: Some(false), ..ANY };

/// The table of design section 6.
///
/// It says of a file with a torn start that stands behind a seal what it is (@F). The same file
/// stands behind zeroes if an opening that took over a torn log was itself cut off, and its
/// records are as lost, so that row holds there too.
const TABLE: &[Row] = &[
    Row { identity_is_valid: false, ..ANY },
    Row {
        label: Label::G,
        at: &[At::Zeroes, At::Unreadable, At::NotUnderstood, At::Falls, At::Cut, At::NoSegment],
        chain_goes_on: Some(true),
        decision: Decision::GoOn,
        ..ANY
    },
    Row {
        label: Label::F,
        at: &[At::Seal],
        chain_goes_on: Some(true),
        decision: Decision::GoOn,
        ..ANY
    },
    Row { label: Label::D, at: &[At::NotUnderstood], chain_goes_on: Some(false), ..ANY },
    Row { label: Label::E, at: &[At::Falls], chain_goes_on: Some(false), ..ANY },
    Row {
        label: Label::C,
        at: &[At::Zeroes, At::Unreadable, At::Seal, At::Cut, At::NoSegment],
        chain_goes_on: Some(false),
        claim_is_above: Some(true),
        ..ANY
    },
    Row {
        label: Label::B,
        at: &[At::Unreadable],
        following: NO_GAP,
        decision: Decision::Torn,
        ..LAST
    },
    Row {
        label: Label::B,
        at: &[At::Zeroes],
        mark_is_behind: Some(true),
        following: NO_GAP,
        decision: Decision::Torn,
        ..LAST
    },
    Row {
        label: Label::A,
        at: &[At::Zeroes],
        mark_is_behind: Some(false),
        following: &[Following::Absent, Following::Unused],
        decision: Decision::End,
        ..LAST
    },
    Row {
        label: Label::F,
        at: &[At::Zeroes],
        mark_is_behind: Some(false),
        following: &[Following::Torn],
        decision: Decision::Torn,
        ..LAST
    },
    Row {
        label: Label::F,
        at: &[At::Seal, At::Cut, At::NoSegment],
        following: &[Following::Unused],
        decision: Decision::End,
        ..LAST
    },
    Row {
        label: Label::F,
        at: &[At::Seal, At::Cut, At::NoSegment],
        following: &[Following::Torn],
        decision: Decision::Torn,
        ..LAST
    },
    // A seal is written only when the next segment has its durable name.
    Row { label: Label::F, at: &[At::Seal], following: &[Following::Absent], ..LAST },
    Row {
        label: Label::F,
        at: &[At::Zeroes, At::Unreadable, At::Seal, At::Cut, At::NoSegment],
        following: &[Following::Gap],
        ..LAST
    },
    // A crash between the cut and its new segment, or a core that nothing was ever written to.
    Row {
        label: Label::F,
        at: &[At::Cut, At::NoSegment],
        following: &[Following::Absent],
        decision: Decision::End,
        ..LAST
    },
];

/// Finds the row that matches, and what it decides.
pub(crate) fn judge(evidence: &Evidence) -> (Label, Decision) {
    let row = TABLE.iter().find(|row| row.matches(evidence));
    // The test below shows that there always is one. If not, nothing may be taken for an end.
    row.map_or((Label::H, Decision::Error), |row| (row.label, row.decision))
}

impl Row {
    fn matches(&self, evidence: &Evidence) -> bool {
        let fits = |wanted: Option<bool>, found| wanted.is_none_or(|wanted| wanted == found);
        self.identity_is_valid == evidence.identity_is_valid
            && self.at.contains(&evidence.at)
            && fits(self.chain_goes_on, evidence.chain_goes_on)
            && fits(self.claim_is_above, evidence.claim_is_above)
            && fits(self.mark_is_behind, evidence.mark_is_behind)
            && self.following.contains(&evidence.following)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_combination() -> impl Iterator<Item = Evidence> {
        let both = [false, true];
        both.into_iter().flat_map(move |identity_is_valid| {
            EVERYTHING.iter().flat_map(move |&at| {
                both.into_iter().flat_map(move |chain_goes_on| {
                    both.into_iter().flat_map(move |claim_is_above| {
                        both.into_iter().flat_map(move |mark_is_behind| {
                            ANY_FOLLOWING.iter().map(move |&following| Evidence {
                                identity_is_valid,
                                at,
                                chain_goes_on,
                                claim_is_above,
                                mark_is_behind,
                                following,
                            })
                        })
                    })
                })
            })
        })
    }

    #[test]
    fn every_combination_of_evidence_matches_exactly_one_row() {
        let mut combinations = 0;
        for evidence in every_combination() {
            let matching = TABLE.iter().filter(|row| row.matches(&evidence)).count();
            assert_eq!(matching, 1, "{evidence:?}");
            combinations += 1;
        }
        assert_eq!(combinations, 2 * 7 * 2 * 2 * 2 * 4);
    }

    /// The table in other words: as questions, in the order in which somebody would ask them.
    fn in_other_words(evidence: &Evidence) -> (Label, Decision) {
        let is_readable_end = matches!(evidence.at, At::Seal | At::Cut | At::NoSegment);
        if !evidence.identity_is_valid {
            (Label::H, Decision::Error)
        } else if evidence.chain_goes_on && evidence.at == At::Seal {
            (Label::F, Decision::GoOn)
        } else if evidence.chain_goes_on {
            (Label::G, Decision::GoOn)
        } else if evidence.at == At::NotUnderstood {
            (Label::D, Decision::Error)
        } else if evidence.at == At::Falls {
            (Label::E, Decision::Error)
        } else if evidence.claim_is_above {
            (Label::C, Decision::Error)
        } else if evidence.following == Following::Gap {
            (Label::F, Decision::Error)
        } else if evidence.at == At::Unreadable
            || (evidence.at == At::Zeroes && evidence.mark_is_behind)
        {
            (Label::B, Decision::Torn)
        } else if evidence.following == Following::Torn {
            (Label::F, Decision::Torn)
        } else if evidence.at == At::Seal && evidence.following == Following::Absent {
            (Label::F, Decision::Error)
        } else if is_readable_end {
            (Label::F, Decision::End)
        } else {
            (Label::A, Decision::End)
        }
    }

    #[test]
    fn the_table_decides_what_it_says_in_other_words() {
        for evidence in every_combination() {
            assert_eq!(judge(&evidence), in_other_words(&evidence), "{evidence:?}");
        }
    }

    #[test]
    fn every_row_is_reached() {
        for (index, row) in TABLE.iter().enumerate() {
            assert!(every_combination().any(|evidence| row.matches(&evidence)), "row {index}");
        }
    }

    #[test]
    fn nothing_below_a_claim_is_ever_an_end() {
        for evidence in every_combination() {
            let (label, decision) = judge(&evidence);
            if evidence.claim_is_above && !evidence.chain_goes_on {
                assert_eq!(decision, Decision::Error, "{label}: {evidence:?}");
            }
        }
    }

    #[test]
    fn labels_are_written_with_an_at_sign() {
        assert_eq!(Label::C.to_string(), "@C");
    }
}
