//! What the server fails on.
//!
//! A batch on which the server fails again and again, while it takes others, holds an event that it
//! cannot digest. It is told apart by halves: at each failure if others passed since, for then the
//! batch is at fault; seldom if nothing passes, for an outage of the server is nobody's fault. One
//! record alone, the *control*, shows which of the two it is. That nobody answers may also be chance,
//! or the network's fault: it has to happen several times. The culprit is *parked*: tried alone, ever
//! more rarely, and kept.
//!
//! What the server fails on is mostly a customer: so from then on the culprit's group travels apart
//! and costs the others no batch (`failing_groups`).

use std::collections::HashSet;

use super::{
    Action, AlarmKind, Delivery, EVENTS_PER_REQUEST, Failing, MonoMs, Now, Purpose, Request, Sent,
    split,
};

/// So often the server fails on a batch before others are let pass.
const FAILURES_TO_SPLIT: u32 = 5;
/// So often there is no answer to a set, while others pass, before it is told apart.
const SILENCES_TO_SPLIT: u32 = 3;
const PARKED_MIN_MS: MonoMs = 60_000;
const PARKED_MAX_MS: MonoMs = 60 * 60_000;

/// Records on which the server fails together.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailingSet {
    /// How many requests had been acknowledged when the set was made, or when it was put in doubt.
    pub(super) acknowledged: u64,
    /// How often it has failed on them.
    pub(super) failures: u32,
    /// The last failure was an answer.
    pub(super) answered: bool,
    /// A control was sent since.
    pub(super) controlled: bool,
    /// It refused them, and not what is said of all.
    pub(super) denied: bool,
    /// So many controls were refused as well.
    pub(super) controls_denied: u32,
    /// They travelled apart: the search in them delays no others.
    pub(super) apart: bool,
}

/// What shows that it is right to fail on records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// It may be chance that nobody answers.
    Silence,
    /// It answered, though perhaps it fails on everything.
    Answer,
    /// It took others meanwhile.
    OthersPass,
}

/// A record on which it fails alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parking {
    pub(super) not_before: MonoMs,
    wait: MonoMs,
    /// How many requests had been acknowledged when it failed on it last.
    acknowledged: u64,
}

impl Delivery {
    /// Whether something of a batch, or of what travels apart, is being told apart.
    pub(super) fn is_failing(&self, apart: bool) -> bool {
        self.failing.iter().any(|(set, _)| set.apart == apart)
    }

    /// The groups on which the server fails, as far as is known.
    pub(super) fn groups_that_fail(&self) -> HashSet<u64> {
        let parked = self.parked.iter().map(|(_, sent)| sent.group());
        let apart = self.failing_groups.keys().copied();
        parked.chain(apart).collect()
    }

    /// The next set of a batch, or of what travels apart.
    pub(super) fn take_failing(&mut self, apart: bool) -> Option<(Purpose, Vec<Sent>)> {
        let at = self.failing.iter().position(|(set, _)| set.apart == apart)?;
        let first = self.failing.remove(at)?;
        self.failing.push_front(first);
        let (set, _) = self.failing.front()?;
        let unsure = set.failures > 0 && !set.controlled && !self.passed_since(set.acknowledged);
        if let Some(control) = unsure.then(|| self.take_control()).flatten() {
            // The set is still there: it was left one record at least.
            self.failing[0].0.controlled = true;
            return Some((Purpose::Control, vec![control]));
        }
        let (set, records) = self.failing.pop_front()?;
        debug_assert!(records.len() <= EVENTS_PER_REQUEST);
        Some((Purpose::Failing(set), records))
    }

    /// One record that is not of the groups of the first set, if need be one under suspicion; one of the set
    /// itself where there is none.
    fn take_control(&mut self) -> Option<Sent> {
        let groups: HashSet<u64> = self.failing.front()?.1.iter().map(Sent::group).collect();
        let is_other = |group| !groups.contains(&group);
        self.take_any_due(is_other).or_else(|| self.take_any_suspect(is_other)).or_else(|| {
            let (_, records) = self.failing.front_mut()?;
            (records.len() > 1).then(|| records.pop()).flatten()
        })
    }

    fn take_any_suspect(&mut self, fits: impl Fn(u64) -> bool) -> Option<Sent> {
        let all = self.suspects.iter().enumerate();
        let fit = all.flat_map(|(set, records)| {
            let at = records.iter().enumerate().filter(|(_, sent)| fits(sent.group()));
            at.map(move |(at, _)| (set, at))
        });
        let (set, at) = self.random.choice(fit.collect::<Vec<_>>())?;
        let taken = self.suspects[set].remove(at);
        self.suspects.retain(|records| !records.is_empty());
        Some(taken)
    }

    pub(super) fn take_parked(&mut self, now: Now) -> Option<(Purpose, Vec<Sent>)> {
        let at = self.parked.iter().position(|(parking, _)| parking.not_before <= now.mono)?;
        let (parking, sent) = self.parked.remove(at);
        Some((Purpose::Parked(parking), vec![sent]))
    }

    /// The server failed on a batch that was due, or on what travels apart. True when that is to let others
    /// pass.
    pub(super) fn fails_again(&mut self, records: &mut [Sent], apart: bool) -> bool {
        for sent in &mut *records {
            sent.item.failures += 1;
        }
        let worst = records.iter().map(|sent| sent.item.failures).max().unwrap_or(0);
        // One under suspicion is enough: the next batch mostly holds calls of the same customer.
        worst >= FAILURES_TO_SPLIT && !self.is_failing(apart)
    }

    /// Whether batches fail, others do not, and one that is told apart will show why.
    pub(super) fn is_searching(&self) -> bool {
        self.batches_fail_since.is_some_and(|then| self.passed_since(then))
            && self.is_failing(false)
    }

    /// The server took a batch that was due, or failed on it.
    pub(super) fn note_batch(&mut self, taken: bool) {
        if taken {
            self.batches_fail_since = None;
        } else {
            self.batches_fail_since.get_or_insert(self.acknowledged);
        }
    }

    /// The server failed on a set: it is told apart if others passed since it was made.
    pub(super) fn failed_set(
        &mut self,
        set: FailingSet,
        failing: Failing,
        records: Vec<Sent>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let failures = set.failures + 1;
        let others_pass = self.passed_since(set.acknowledged);
        let set = FailingSet {
            failures,
            answered: failing != Failing::Silent,
            denied: failing == Failing::Denied,
            controlled: false,
            ..set
        };
        let enough = match failing {
            Failing::Answered | Failing::Denied if others_pass => 1,
            Failing::Silent if others_pass => SILENCES_TO_SPLIT,
            _ => FAILURES_TO_SPLIT,
        };
        if failures >= enough {
            let evidence = match failing {
                _ if others_pass => Evidence::OthersPass,
                Failing::Silent => Evidence::Silence,
                _ => Evidence::Answer,
            };
            self.tell_apart_failing(records, set, evidence, now, actions);
        } else {
            self.keep_failing(set, records);
        }
    }

    /// The server took a control: it works, and so is right to fail on the set.
    pub(super) fn took_control(&mut self, now: Now, actions: &mut Vec<Action>) {
        let Some((set, _)) = self.failing.front() else { return };
        let shows = set.controlled && set.answered;
        if let Some((set, records)) = shows.then(|| self.failing.pop_front()).flatten() {
            self.tell_apart_failing(records, set, Evidence::OthersPass, now, actions);
        }
    }

    /// A control was not taken: others may show more.
    pub(super) fn failed_control(&mut self, control: Sent, now: Now) {
        let Some((set, mut records)) = self.failing.pop_front() else {
            return self.return_to_queues(vec![control], now);
        };
        if records.iter().any(|sent| sent.group() == control.group()) {
            records.insert(0, control);
        } else {
            self.return_to_queues(vec![control], now);
        }
        self.failing.push_back((set, records));
    }

    pub(super) fn new_set(&self, apart: bool) -> FailingSet {
        let acknowledged = self.acknowledged;
        FailingSet {
            acknowledged,
            failures: 0,
            answered: false,
            controlled: false,
            denied: false,
            controls_denied: 0,
            apart,
        }
    }

    pub(super) fn passed_since(&self, acknowledged: u64) -> bool {
        acknowledged < self.acknowledged
    }

    /// Whether the server fails on what was sent, and not on everything.
    pub(super) fn is_at_fault(&self, request: &Request, failing: Failing) -> bool {
        match (&request.purpose, failing) {
            (_, Failing::No) => false,
            (Purpose::Parked(_), Failing::Answered) => true,
            (Purpose::Parked(parking), _) => self.passed_since(parking.acknowledged),
            (Purpose::Failing(set), _) => self.passed_since(set.acknowledged),
            (Purpose::Apart, _) => self.is_group_at_fault(&request.records),
            _ => false,
        }
    }

    /// One record alone is parked; where it may not be at fault, nobody is told.
    pub(super) fn tell_apart_failing(
        &mut self,
        records: Vec<Sent>,
        set: FailingSet,
        evidence: Evidence,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        match records[..] {
            [alone] if evidence != Evidence::Silence => {
                if evidence == Evidence::OthersPass {
                    self.part_group(alone.group(), now);
                }
                self.park(alone, None, now, actions);
            }
            [alone] => {
                let (not_before, acknowledged) = (now.mono, self.acknowledged);
                let parking = Parking { not_before, wait: PARKED_MIN_MS, acknowledged };
                self.park_again(alone, parking, now);
            }
            // The parts go first, so that a culprit is found soon.
            _ => {
                let [first, second] = split(records);
                let mut half = self.new_set(set.apart);
                if set.denied && evidence == Evidence::OthersPass {
                    // That it is right to refuse the whole shows the same of the halves. An outage of the
                    // server may begin in between.
                    half.acknowledged = set.acknowledged;
                }
                self.failing.push_front((half, second));
                self.failing.push_front((half, first));
            }
        }
    }

    /// A set of what travels apart, of which it is not known yet whether it is at fault.
    pub(super) fn suspect_apart(&mut self, records: Vec<Sent>) {
        let set = FailingSet { failures: 1, ..self.new_set(true) };
        self.keep_failing(set, records);
    }

    pub(super) fn keep_failing(&mut self, set: FailingSet, records: Vec<Sent>) {
        if set.apart {
            self.failing.push_back((set, records));
        } else {
            self.failing.push_front((set, records));
        }
    }

    /// The server works again: what it failed on while it failed on everything is tried at once.
    pub(super) fn unpark(&mut self, now: Now) {
        // The request that it took is counted already.
        self.try_parked_since(self.acknowledged.saturating_sub(1), now);
    }

    /// What was parked, or tried in vain, since so many requests had been acknowledged is tried at once.
    pub(super) fn try_parked_since(&mut self, since: u64, now: Now) {
        for (parking, _) in &mut self.parked {
            if parking.acknowledged >= since {
                *parking = Parking { not_before: now.mono, wait: PARKED_MIN_MS, ..*parking };
            }
        }
        self.try_failing_groups(since, now);
    }

    /// A parked record was tried, and no answer says that it is at fault.
    pub(super) fn park_again(&mut self, sent: Sent, before: Parking, now: Now) {
        let parking = Parking { not_before: now.mono + before.wait, ..before };
        self.parked.push((parking, sent));
    }

    /// Tries a record again after a wait that grows.
    pub(super) fn park(
        &mut self,
        sent: Sent,
        before: Option<Parking>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let wait = before.map_or(PARKED_MIN_MS, |parking| (parking.wait * 2).min(PARKED_MAX_MS));
        let message = format!(
            "the billing API fails on a call, or does not answer, whenever it is sent; the call is \
             kept, and tried again in {} minutes",
            wait / 60_000
        );
        actions.push(Action::Alarm { kind: AlarmKind::Parked, message });
        let (not_before, acknowledged) = (now.mono + wait, self.acknowledged);
        self.parked.push((Parking { not_before, wait, acknowledged }, sent));
    }
}
