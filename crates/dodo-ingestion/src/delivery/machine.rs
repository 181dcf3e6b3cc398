//! The state machine itself: what goes into a request, and when. What follows from its answer is in
//! `answered`.

mod answered;
mod denied;
mod failing;
mod failing_groups;
mod filling;
mod lookups;
mod probing;
mod reading;
mod setting_aside;
mod turns;

use std::collections::{BTreeMap, HashSet, VecDeque};

use denied::Access;
use failing::{FailingSet, Parking};
use failing_groups::FailingGroup;
use lookups::Lookup;
use turns::{Turn, Turns};

use super::answer::{Answer, Failing, HoldReason, Verdict, judge};
use super::budget::Budget;
use super::queue::{Amount, FULL, Item, Queue};
use super::refusal::{Refusals, Sent, split};
use super::size::RequestSize;
use super::stamp::{Skew, StampBase};
use super::{Action, Cause, Input, Meta, RecordRef, RequestBody, SpoolId, Token, Trouble};
use crate::alarm::AlarmKind;
use crate::clock::{MonoMs, Now, WallMs};
use crate::config::LatePolicy;
use crate::error::ErrorKind;
use crate::validate::limits::EVENTS_PER_REQUEST;

/// How long to wait before looking again whether a key or an address works.
const HOLD_MS: MonoMs = 60_000;
const BACKOFF_BASE_MS: u64 = 500;
const BACKOFF_MAX_MS: u64 = 60_000;
/// What could not be stored is tried again after this.
const STORAGE_RETRY_MS: MonoMs = 5_000;
/// Groups that travel apart have one in so many requests of the budget.
const APART_SHARE: u32 = 10;
/// While so many bytes of records wait outside of the queues, no others are read: memory is bounded.
const MAX_BYTES_ASIDE: usize = 8 << 20;
const MINUTE: MonoMs = 60_000;
/// So many failures in a row are worth telling the operator.
const FAILURES_TO_TELL: u32 = 3;

/// What the delivery of one namespace is set to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) requests_per_minute: u32,
    pub(crate) requests_per_second: u32,
    pub(crate) late: LatePolicy,
    /// For the jitter.
    pub(crate) seed: u64,
}

/// What delivery has done since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) retries: u64,
    pub(crate) restamped: u64,
}

/// Why records go into a request together.
#[derive(Clone, Debug)]
enum Purpose {
    /// They are due.
    Deliver,
    /// They were refused together with others, and are being told apart.
    TellApart,
    /// They are of a group that is refused as a whole.
    Apart,
    /// One record that shows whether a systemic refusal is over.
    Probe,
    /// The server failed on them again and again.
    Failing(FailingSet),
    /// One of those, which shows whether it fails on everything.
    Control,
    /// One record on which the server fails alone.
    Parked(Parking),
    /// One record of which the API is asked whether it knows it.
    Lookup(Lookup),
}

#[derive(Debug)]
struct Request {
    token: Token,
    records: Vec<Sent>,
    purpose: Purpose,
    /// It was refused, the skew was learnt, and it goes once more with other stamps.
    restamped: bool,
    /// It was refused by an answer that said nothing of now, and goes once more as it is.
    asked_again: bool,
    stamps: Option<StampBase>,
    /// The key that it was sent with: the first, the second, …
    key: u64,
    started: Now,
}

/// See the [module](super).
#[derive(Debug)]
pub(crate) struct Delivery {
    settings: Settings,
    queues: BTreeMap<SpoolId, Queue>,
    /// The spool whose records go into the next request first.
    turn: SpoolId,
    /// Sets of records that were refused together, in the order in which they are tried.
    suspects: VecDeque<Vec<Sent>>,
    refusals: Refusals,
    /// The records of groups that travel apart.
    apart: BTreeMap<u64, Vec<Sent>>,
    apart_not_before: MonoMs,
    /// The group that goes next, or the first one after it.
    apart_turn: u64,
    /// The spools that are yet to be asked for records.
    to_read: VecDeque<SpoolId>,
    /// The group that was probed last.
    probed: u64,
    failing: VecDeque<(FailingSet, Vec<Sent>)>,
    /// How many requests had been acknowledged when batches began to fail; none if the last was taken.
    batches_fail_since: Option<u64>,
    parked: Vec<(Parking, Sent)>,
    /// Those that travel apart because the server fails on records of theirs.
    failing_groups: BTreeMap<u64, FailingGroup>,
    lookups: VecDeque<(Lookup, Sent)>,
    turns: Turns,
    /// How many requests were acknowledged.
    acknowledged: u64,
    /// Waiting for its attempt to be written down.
    preparing: Option<Request>,
    under_way: Option<Request>,
    setting_aside: BTreeMap<Token, (Cause, Sent)>,
    /// What is to be set aside and could not be written.
    unwritten: Vec<(Cause, Sent)>,
    unwritten_not_before: MonoMs,
    budget: Budget,
    skew: Skew,
    size: RequestSize,
    failures: u32,
    access: Access,
    /// How many sets that were told apart were denied since anything was taken.
    denials: u32,
    /// The last thing that went wrong with all requests, until one is answered as it should.
    trouble: Option<Trouble>,
    not_before: MonoMs,
    /// The key that requests are made with.
    key: u64,
    next_token: Token,
    random: fastrand::Rng,
    counts: Counts,
    wake_at: Option<MonoMs>,
}

impl Request {
    /// How long it is under way, by the clock that moved more: the other may have stood still.
    fn under_way_ms(&self, now: Now) -> u64 {
        let by_wall = now.wall.abs_diff(self.started.wall);
        by_wall.max(now.mono.saturating_sub(self.started.mono))
    }
}

impl Delivery {
    /// `starts`: when an earlier sender's recent requests started. `denied`: its key, or the address, was
    /// refused last.
    pub(crate) fn new(settings: Settings, starts: &[WallMs], denied: bool, now: Now) -> Self {
        let mut random = fastrand::Rng::with_seed(settings.seed);
        let mut budget = Budget::new(settings.requests_per_minute, settings.requests_per_second);
        budget.inherit(starts, now);
        Self {
            settings,
            queues: BTreeMap::new(),
            turn: 0,
            suspects: VecDeque::new(),
            refusals: Refusals::default(),
            apart: BTreeMap::new(),
            apart_not_before: 0,
            apart_turn: 0,
            to_read: VecDeque::new(),
            probed: random.u64(..),
            failing: VecDeque::new(),
            batches_fail_since: None,
            parked: Vec::new(),
            failing_groups: BTreeMap::new(),
            lookups: VecDeque::new(),
            turns: Turns::default(),
            acknowledged: 0,
            preparing: None,
            under_way: None,
            setting_aside: BTreeMap::new(),
            unwritten: Vec::new(),
            unwritten_not_before: 0,
            budget,
            skew: Skew::default(),
            size: RequestSize::default(),
            failures: 0,
            access: if denied { Access::Denied } else { Access::Given },
            denials: 0,
            trouble: None,
            not_before: 0,
            key: 0,
            next_token: 0,
            random,
            counts: Counts::default(),
            wake_at: None,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// What keeps calls from being taken; nothing while they are.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.trouble.or_else(|| self.refusals.is_systemic().then_some(Trouble::Systemic))
    }

    /// When the next [`Input::Tick`] is wanted, if nothing else happens.
    pub(crate) fn wake_at(&self) -> Option<MonoMs> {
        self.wake_at
    }

    /// Takes note of what happened. When all that it asks for is carried out, [`Self::decide`] says
    /// what is to be sent.
    pub(crate) fn handle(&mut self, input: Input, now: Now, actions: &mut Vec<Action>) {
        match input {
            Input::Tick => self.ask_for_records(),
            Input::Available { spool, metas } => self.available(spool, metas, now, actions),
            Input::Stored { token, ok } => self.stored(token, ok, now, actions),
            Input::Answer { request, answer } => {
                if let Some(request) = self.under_way.take_if(|sent| sent.token == request) {
                    self.answered(request, &answer, now, actions);
                    // A full request goes out at once, and more is read while it is under way.
                    let waiting: usize = self.queues.values().map(Queue::len).sum();
                    if waiting < EVENTS_PER_REQUEST {
                        self.ask_for_records();
                    }
                }
            }
            Input::KeyChanged => {
                self.key += 1;
                self.access = Access::Given;
                self.try_parked_since(0, now);
                if let Some(Trouble::KeyRefused { .. } | Trouble::WrongAddress) = self.trouble() {
                    self.trouble = None;
                    self.not_before = 0;
                }
            }
            Input::SpoolGone { spool } => self.forget(spool),
        }
    }

    /// The spool is gone, and what waits of it can no longer be sent.
    fn forget(&mut self, spool: SpoolId) {
        self.queues.remove(&spool);
        let stays = |sent: &Sent| sent.spool != spool;
        for records in self.suspects.iter_mut().chain(self.apart.values_mut()) {
            records.retain(stays);
        }
        for (_, records) in &mut self.failing {
            records.retain(stays);
        }
        self.suspects.retain(|records| !records.is_empty());
        self.apart.retain(|_, records| !records.is_empty());
        self.failing.retain(|(_, records)| !records.is_empty());
        self.parked.retain(|(_, sent)| stays(sent));
        self.lookups.retain(|(_, sent)| stays(sent));
        self.unwritten.retain(|(_, sent)| stays(sent));
        self.preparing.take_if(|request| {
            request.records.retain(stays);
            request.records.is_empty()
        });
    }

    /// Reads on, starts the next request if there is one, or sets when to look again. Whatever is due
    /// takes along all that waits: so this comes after the reading, and until it asks for nothing more.
    pub(crate) fn decide(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.wake_at = None;
        self.write_again(now, actions);
        if !actions.is_empty() {
            return;
        }
        while !self.read_on(actions) && self.preparing.is_none() && self.under_way.is_none() {
            let Some(at) = self.next_due(now) else { return };
            let urgent = self.queues.values().any(Queue::is_urgent);
            let start = self.budget.next_start(now.mono, urgent);
            let at = at.max(self.not_before).max(start);
            if at > now.mono {
                self.wake_at = self.wake_at.into_iter().chain([at]).min();
                return;
            }
            if let Some(request) = self.next_request(now, actions) {
                self.prepare(request, now, actions);
                return;
            }
            if !actions.is_empty() {
                return;
            }
            // What was found to be in need of a look-up, or of a group apart, makes room for more.
            self.ask_for_records();
        }
    }

    /// When there is something to send.
    fn next_due(&self, now: Now) -> Option<MonoMs> {
        if self.refusals.is_systemic() {
            return self.probe_due(now);
        }
        Turn::ALL.into_iter().filter_map(|turn| self.due(turn, now)).min()
    }

    fn due(&self, turn: Turn, now: Now) -> Option<MonoMs> {
        match turn {
            Turn::Deliver => self.queues_due(),
            Turn::TellApart => (!self.suspects.is_empty()).then_some(now.mono),
            Turn::Apart => self.apart_due(now),
            Turn::Failing => self.is_failing(false).then_some(now.mono),
            Turn::FailingApart => self.is_failing(true).then_some(now.mono),
            Turn::Parked => self.parked.iter().map(|(parking, _)| parking.not_before).min(),
            Turn::Lookup => self.lookups.iter().map(|(lookup, _)| lookup.not_before).min(),
        }
    }

    /// When what waits in the queues is due: at once if it makes a full request. What is of groups
    /// under suspicion waits.
    fn queues_due(&self) -> Option<MonoMs> {
        let suspected = self.suspected();
        let (mut due, mut all) = (None, Amount::default());
        for queue in self.queues.values() {
            let amount = if suspected.is_empty() {
                queue.amount()
            } else {
                queue.amount_of(|meta| !suspected.contains(&meta.group))
            };
            if amount.records > 0 {
                all = all.plus(amount);
                due = due.into_iter().chain(queue.due()).min();
            }
        }
        let full = all.records >= FULL.records || all.bytes >= FULL.bytes;
        if full { Some(0) } else { due }
    }

    fn suspected(&self) -> HashSet<u64> {
        self.suspects.iter().flatten().map(Sent::group).collect()
    }

    /// What is due takes turns, so that neither a bad customer nor a failing batch delays others.
    fn next_turn(&self, now: Now) -> Option<Turn> {
        let is_due = |turn: &Turn| self.due(*turn, now).is_some_and(|at| at <= now.mono);
        if self.access == Access::Denied && !self.turns.looked_up_last() && is_due(&Turn::Lookup) {
            // It shows whether it is the key that is refused.
            return Some(Turn::Lookup);
        }
        let mut due = self.turns.in_order(self.is_searching()).filter(&is_due).filter(|turn| {
            // A refusal of all is told from that of one group by looking at several first.
            *turn != Turn::Apart || self.suspects.is_empty() || !self.refusals.may_be_systemic()
        });
        let first = due.next()?;
        let yields = first == Turn::Lookup
            && is_due(&Turn::Deliver)
            && self.blamed_due(now).is_none()
            && !self.turns.may_look_up();
        if yields { due.next() } else { Some(first) }
    }

    fn next_request(&mut self, now: Now, actions: &mut Vec<Action>) -> Option<Request> {
        let (purpose, mut records) = if self.refusals.is_systemic() {
            self.take_probe(now)?
        } else if let Some(taken) = self.take_doubted() {
            taken
        } else {
            let turn = self.next_turn(now)?;
            self.turns.note(turn);
            match turn {
                Turn::Deliver if self.access == Access::Denied => {
                    (Purpose::Deliver, self.take_alone())
                }
                Turn::Apart if self.access == Access::Denied => {
                    (Purpose::Apart, self.take_alone_apart(now))
                }
                Turn::Deliver => (Purpose::Deliver, self.fill()),
                Turn::TellApart => {
                    (Purpose::TellApart, self.suspects.pop_front().unwrap_or_default())
                }
                Turn::Apart => (Purpose::Apart, self.take_apart(now)),
                Turn::Failing => self.take_failing(false)?,
                Turn::FailingApart => self.take_failing(true)?,
                Turn::Parked => self.take_parked(now)?,
                Turn::Lookup => self.take_lookup(now)?,
            }
        };
        if !matches!(purpose, Purpose::Lookup(_)) {
            self.part_what_needs_a_lookup(&mut records, now);
            if self.settings.late == LatePolicy::DeadLetter {
                self.set_aside_what_is_late(&mut records, now, actions);
            }
        }
        if records.is_empty() {
            return None;
        }
        let token = self.token();
        Some(Request {
            token,
            records,
            purpose,
            restamped: false,
            asked_again: false,
            stamps: None,
            key: self.key,
            started: now,
        })
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        self.next_token
    }

    /// Has the attempt written down where that is news, and sends the request.
    fn prepare(&mut self, request: Request, now: Now, actions: &mut Vec<Action>) {
        if let (Purpose::Lookup(_), [sent]) = (&request.purpose, &request.records[..]) {
            self.start(now);
            actions.push(Action::Lookup { request: request.token, record: sent.at() });
            self.under_way = Some(request);
            return;
        }
        let mut ends: BTreeMap<SpoolId, RecordRef> = BTreeMap::new();
        for sent in &request.records {
            let end = RecordRef { spool: sent.spool, seq: sent.item.meta.seq + 1 };
            let known = self.queues.get(&sent.spool).map_or(0, |queue| queue.attempted);
            if end.seq > known {
                ends.entry(sent.spool).and_modify(|at| *at = end.max(*at)).or_insert(end);
            }
        }
        if ends.is_empty() {
            self.send(request, now, actions);
        } else {
            let ends: Vec<RecordRef> = ends.into_values().collect();
            for end in &ends {
                if let Some(queue) = self.queues.get_mut(&end.spool) {
                    queue.attempted = end.seq;
                }
            }
            actions.push(Action::RecordAttempt { token: request.token, ends });
            self.preparing = Some(request);
        }
    }

    fn send(&mut self, mut request: Request, now: Now, actions: &mut Vec<Action>) {
        let stamps = self.skew.base(now.wall);
        request.stamps = Some(stamps);
        (request.key, request.started) = (self.key, now);
        for sent in &mut request.records {
            sent.item.attempts += 1;
        }
        self.start(now);
        let records = request.records.iter().map(Sent::at).collect();
        actions.push(Action::Send { request: request.token, records, stamps });
        self.under_way = Some(request);
    }

    fn start(&mut self, now: Now) {
        self.counts.requests += 1;
        self.budget.started(now.mono);
    }

    fn stored(&mut self, token: Token, ok: bool, now: Now, actions: &mut Vec<Action>) {
        if let Some(request) = self.preparing.take_if(|request| request.token == token) {
            if ok {
                self.send(request, now, actions);
            } else {
                self.not_before = now.mono + STORAGE_RETRY_MS;
                for queue in self.queues.values_mut() {
                    queue.attempted = 0; // what was written down is not known: write it again
                }
                self.put_back(request, now);
            }
        } else {
            self.written(token, ok, now, actions);
        }
    }
}

/// The bytes that a record takes of a request.
fn cost(meta: &Meta) -> usize {
    meta.json_bytes + RequestBody::EXTRA_BYTES_PER_EVENT
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
