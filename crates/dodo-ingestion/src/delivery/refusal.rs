//! Who is to blame for a refusal.
//!
//! A refusal is for a request as a whole and does not name the culprit. So what was refused together
//! is told apart: by group first (a customer and event name), for a group is mostly refused as a
//! whole, then by halves. Meanwhile records of the groups under suspicion wait, and the others go
//! on. A group of which a record was refused alone travels *apart*, in requests of its own, until
//! one of its records is taken: so one bad customer costs the others nothing. A group of which
//! several were refused alone, and none taken, is *condemned*: what is refused of it is set aside
//! together. Where records of many groups that were not refused before are refused alone and none is
//! taken at all, nobody is to blame but the sender's own set-up, and all stops: the refusal is *systemic*.
//! What was refused until it is over says little of a group: it is in *doubt*, and travels apart until one
//! of its records is taken, or refused alone again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::RecordRef;
use super::queue::Item;
use crate::planted::{Fault, is_planted};

/// So many records of a group, refused alone, show that the group is refused as a whole.
const ALONE_TO_CONDEMN: u32 = 3;
/// Records of so many groups, refused alone with none taken in between, are no coincidence.
const GROUPS_TO_STOP: usize = 8;

/// One record of a request or of the suspects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) spool: super::SpoolId,
    pub(super) item: Item,
}

impl Sent {
    pub(super) fn at(&self) -> RecordRef {
        RecordRef { spool: self.spool, seq: self.item.meta.seq }
    }

    pub(super) fn group(&self) -> u64 {
        self.item.meta.group
    }
}

/// What the refusals so far have shown.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// How many records of a group were refused alone since one of it was taken, and since all stopped.
    alone: HashMap<u64, u32>,
    /// The groups that were first refused alone since any record was taken.
    since_taken: BTreeSet<u64>,
    systemic: bool,
}

impl Refusals {
    /// A record was refused in a request of its own. True when that makes the refusals systemic.
    pub(super) fn refused_alone(&mut self, group: u64) -> bool {
        let refused = self.alone.entry(group).or_default();
        *refused += 1;
        if *refused == 1 {
            self.since_taken.insert(group);
        }
        let begins = !self.systemic
            && self.since_taken.len() >= GROUPS_TO_STOP
            && !is_planted(Fault::NeverSystemic);
        if begins {
            self.systemic = true;
            self.alone.values_mut().for_each(|refused| *refused = 0);
        }
        begins
    }

    /// A record of a group was refused while everything was.
    pub(super) fn doubt(&mut self, group: u64) {
        self.alone.entry(group).or_default();
    }

    /// Whether a group was refused while everything was, and since then neither refused alone nor taken.
    pub(super) fn is_doubted(&self, group: u64) -> bool {
        self.alone.get(&group) == Some(&0)
    }

    /// Records were taken. True when that ends a systemic refusal.
    pub(super) fn taken(&mut self, records: &[Sent]) -> bool {
        if !self.alone.is_empty() {
            for sent in records {
                self.alone.remove(&sent.group());
            }
        }
        self.since_taken.clear();
        std::mem::take(&mut self.systemic)
    }

    /// Whether records were refused alone and none was taken since.
    pub(super) fn may_be_systemic(&self) -> bool {
        !self.since_taken.is_empty()
    }

    pub(super) fn is_systemic(&self) -> bool {
        self.systemic
    }

    /// Whether the records of a group travel in requests of their own.
    pub(super) fn is_apart(&self, group: u64) -> bool {
        self.alone.contains_key(&group)
    }

    /// Whether any group does.
    pub(super) fn any_apart(&self) -> bool {
        !self.alone.is_empty()
    }

    /// Whether what is refused of a group is set aside together.
    pub(super) fn is_condemned(&self, group: u64) -> bool {
        self.alone.get(&group).is_some_and(|refused| *refused >= ALONE_TO_CONDEMN)
    }
}

/// Splits what was refused together in two that are about equal: between groups where there are
/// several, else by halves. Each part keeps the order.
pub(super) fn split(mut records: Vec<Sent>) -> [Vec<Sent>; 2] {
    let mut sizes: BTreeMap<u64, usize> = BTreeMap::new();
    for sent in &records {
        *sizes.entry(sent.group()).or_default() += 1;
    }
    let half = records.len() / 2;
    if sizes.len() < 2 {
        let second = records.split_off(half);
        return [records, second];
    }
    // Groups go into the first part until it holds half, but never all of them.
    let mut first = BTreeSet::new();
    let mut held = 0;
    for (group, size) in sizes.iter().take(sizes.len() - 1) {
        if held > 0 && held + size > half {
            break;
        }
        first.insert(*group);
        held += size;
    }
    let (first, second) = records.into_iter().partition(|sent| first.contains(&sent.group()));
    [first, second]
}
