//! The state machine itself: what goes into a request, and when. What follows from its answer is in
//! `answered`.

mod answered;

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::answer::{Answer, HoldReason, Verdict, judge};
use super::budget::Budget;
use super::queue::{FULL_BYTES, Item, Queue};
use super::refusal::{Refusals, Sent, split};
use super::stamp::{Skew, StampBase};
use super::{Action, Cause, Input, Meta, RecordRef, RequestBody, SpoolId, Token};
use crate::alarm::AlarmKind;
use crate::clock::{MonoMs, Now, WallMs};
use crate::config::LatePolicy;
use crate::error::ErrorKind;
use crate::validate::limits::EVENTS_PER_REQUEST;

/// Records of one spool that are looked at ahead of time: one request's under way, one's to come.
const LOOKAHEAD: usize = 2 * EVENTS_PER_REQUEST;
const LOOKAHEAD_BYTES: usize = 2 * FULL_BYTES;
/// The size of a request until the server says that it is too large. The published limit is none.
const MAX_REQUEST_BYTES: usize = FULL_BYTES;
/// What is learnt from a 413 goes no lower; below it, the records of that one request are told apart.
const LEAST_REQUEST_BYTES: usize = 4_096;
/// How long to wait before looking again whether a key or an address works.
const HOLD_MS: MonoMs = 60_000;
const BACKOFF_BASE_MS: u64 = 500;
const BACKOFF_MAX_MS: u64 = 60_000;
/// What could not be stored is tried again after this.
const STORAGE_RETRY_MS: MonoMs = 5_000;
/// Groups that travel apart have one in so many requests of the budget.
const APART_SHARE: u32 = 10;
/// While so many bytes of records wait apart, no others are read: memory is bounded.
const MAX_APART_BYTES: usize = 8 << 20;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// They are due.
    Deliver,
    /// They were refused together with others, and are being told apart.
    TellApart,
    /// They are of a group that is refused as a whole.
    Apart,
    /// One record that shows whether a systemic refusal is over.
    Probe,
}

#[derive(Debug)]
struct Request {
    token: Token,
    records: Vec<Sent>,
    purpose: Purpose,
    /// It was refused, the skew was learnt, and it goes once more with other stamps.
    restamped: bool,
    stamps: Option<StampBase>,
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
    /// Whether the next request is for what is due, though there are suspects.
    suspects_wait: bool,
    refusals: Refusals,
    /// The records of groups that travel apart.
    apart: BTreeMap<u32, Vec<Sent>>,
    apart_not_before: MonoMs,
    /// The group that goes next, or the first one after it.
    apart_turn: u32,
    /// The group that was probed last.
    probed: u32,
    /// Waiting for its attempt to be written down.
    preparing: Option<Request>,
    under_way: Option<Request>,
    setting_aside: BTreeMap<Token, Sent>,
    budget: Budget,
    skew: Skew,
    max_bytes: usize,
    failures: u32,
    /// Nothing is taken until a key or an address is right.
    held: bool,
    not_before: MonoMs,
    next_token: Token,
    random: fastrand::Rng,
    counts: Counts,
    wake_at: Option<MonoMs>,
}

impl Delivery {
    /// `starts`: when an earlier sender's recent requests started.
    pub(crate) fn new(settings: Settings, starts: &[WallMs], now: Now) -> Self {
        let mut budget = Budget::new(settings.requests_per_minute, settings.requests_per_second);
        budget.inherit(starts, now);
        Self {
            settings,
            queues: BTreeMap::new(),
            turn: 0,
            suspects: VecDeque::new(),
            suspects_wait: false,
            refusals: Refusals::default(),
            apart: BTreeMap::new(),
            apart_not_before: 0,
            apart_turn: 0,
            probed: 0,
            preparing: None,
            under_way: None,
            setting_aside: BTreeMap::new(),
            budget,
            skew: Skew::default(),
            max_bytes: MAX_REQUEST_BYTES,
            failures: 0,
            held: false,
            not_before: 0,
            next_token: 0,
            random: fastrand::Rng::with_seed(settings.seed),
            counts: Counts::default(),
            wake_at: None,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// When the next [`Input::Tick`] is wanted, if nothing else happens.
    pub(crate) fn wake_at(&self) -> Option<MonoMs> {
        self.wake_at
    }

    /// Takes note of what happened. When all that it asks for is carried out, [`Self::decide`] says
    /// what is to be sent.
    pub(crate) fn handle(&mut self, input: Input, now: Now, actions: &mut Vec<Action>) {
        match input {
            Input::Tick => self.ask_for_records(actions),
            Input::Available { spool, metas } => self.available(spool, metas, now, actions),
            Input::Stored { token, ok } => self.stored(token, ok, now, actions),
            Input::Answer { request, answer } => {
                if let Some(request) = self.under_way.take_if(|sent| sent.token == request) {
                    self.answered(request, &answer, now, actions);
                    // A full request goes out at once, and more is read while it is under way.
                    let waiting: usize = self.queues.values().map(Queue::len).sum();
                    if waiting < EVENTS_PER_REQUEST {
                        self.ask_for_records(actions);
                    }
                }
            }
            Input::KeyChanged => {
                if std::mem::take(&mut self.held) {
                    self.not_before = 0;
                }
            }
            Input::SpoolGone { spool } => {
                self.queues.remove(&spool);
            }
        }
    }

    fn ask_for_records(&self, actions: &mut Vec<Action>) {
        let apart = self.apart.values().flatten().map(|sent| sent.item.meta.json_bytes);
        if apart.sum::<usize>() > MAX_APART_BYTES {
            return;
        }
        for (spool, queue) in &self.queues {
            let records = LOOKAHEAD.saturating_sub(queue.len());
            let bytes = LOOKAHEAD_BYTES.saturating_sub(queue.bytes());
            if records > 0 && bytes > 0 {
                actions.push(Action::Read { spool: *spool, records, bytes });
            }
        }
    }

    fn available(&mut self, spool: SpoolId, metas: Vec<Meta>, now: Now, actions: &mut Vec<Action>) {
        let queue = self.queues.entry(spool).or_default();
        let mut flushes = Vec::new();
        for meta in metas {
            if meta.flush {
                queue.flush(meta.seq);
                flushes.push(RecordRef { spool, seq: meta.seq });
            } else {
                queue.push(meta, now);
            }
        }
        if !flushes.is_empty() {
            actions.push(Action::Settle { records: flushes });
        }
    }

    /// Starts the next request if there is one, or sets when to look again. Whatever is due takes
    /// along all that waits: so this comes after the reading, and until it asks for nothing more.
    pub(crate) fn decide(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.wake_at = None;
        if self.preparing.is_some() || self.under_way.is_some() {
            return;
        }
        let deliver = self.queues.values().filter_map(Queue::due).min();
        let tell_apart = (!self.suspects.is_empty()).then_some(now.mono);
        let apart = (!self.apart.is_empty()).then_some(self.apart_not_before);
        let Some(due) = [deliver, tell_apart, apart].into_iter().flatten().min() else { return };
        let urgent = self.queues.values().any(Queue::is_urgent);
        let start = self.budget.next_start(now.mono, urgent);
        let at = due.max(self.not_before).max(start);
        if at > now.mono {
            self.wake_at = Some(at);
            return;
        }
        let is_due = |at: Option<MonoMs>| at.is_some_and(|at| at <= now.mono);
        let purpose = if self.refusals.is_systemic() {
            Purpose::Probe
        } else if is_due(apart) && (tell_apart.is_none() || !self.refusals.may_be_systemic()) {
            Purpose::Apart
        } else if tell_apart.is_some() && !(self.suspects_wait && is_due(deliver)) {
            Purpose::TellApart
        } else {
            Purpose::Deliver
        };
        let mut request = self.next_request(purpose, now, actions);
        if request.is_none() && tell_apart.is_some() {
            // All that is due is of groups under suspicion.
            request = self.next_request(Purpose::TellApart, now, actions);
        }
        match request {
            Some(request) => self.prepare(request, now, actions),
            // What was due now waits apart.
            None => self.wake_at = (!self.apart.is_empty()).then_some(self.apart_not_before),
        }
    }

    fn next_request(
        &mut self,
        purpose: Purpose,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Option<Request> {
        // What is due takes turns with the suspects, so that a bad customer delays nobody for long.
        self.suspects_wait = purpose == Purpose::TellApart;
        let mut records = match purpose {
            Purpose::Deliver => self.fill(),
            Purpose::TellApart => self.suspects.pop_front().unwrap_or_default(),
            Purpose::Apart => self.take_apart(now),
            Purpose::Probe => self.take_probe(),
        };
        if self.settings.late == LatePolicy::DeadLetter {
            let base = self.skew.base(now.wall);
            let late = |sent: &Sent| base.is_late(sent.item.meta.occurred_at);
            for sent in records.extract_if(.., |sent| late(sent)) {
                let message = "older than the hour that the billing API takes, and late = \
                               \"dead_letter\" was chosen";
                self.set_aside(sent, ErrorKind::Rejected, None, message, false, actions);
            }
        }
        if records.is_empty() {
            return None;
        }
        let token = self.token();
        Some(Request { token, records, purpose, restamped: false, stamps: None })
    }

    /// The records of one group that travels apart; within a tenth of the request budget.
    fn take_apart(&mut self, now: Now) -> Vec<Sent> {
        let requests = u64::from(self.settings.requests_per_minute / APART_SHARE).max(1);
        self.apart_not_before = now.mono + MINUTE / requests;
        let next = self.apart.range(self.apart_turn..).next().or_else(|| self.apart.iter().next());
        let Some((&group, _)) = next else { return Vec::new() };
        self.apart_turn = group.wrapping_add(1);
        let mut records = self.apart.remove(&group).unwrap_or_default();
        if records.len() > EVENTS_PER_REQUEST {
            self.apart.insert(group, records.split_off(EVENTS_PER_REQUEST));
        }
        records
    }

    /// One record, of another group than the last one that was probed, where there is one.
    fn take_probe(&mut self) -> Vec<Sent> {
        let probed = self.probed;
        let take = |queues: &mut BTreeMap<SpoolId, Queue>, fits: &dyn Fn(&Meta) -> bool| {
            queues.iter_mut().find_map(|(spool, queue)| {
                let item = queue.take_first(fits)?;
                Some(Sent { spool: *spool, item })
            })
        };
        let other = take(&mut self.queues, &|meta| meta.group != probed);
        let probe = other.or_else(|| take(&mut self.queues, &|_| true));
        if let Some(sent) = &probe {
            self.probed = sent.group();
        }
        probe.into_iter().collect()
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        self.next_token
    }

    /// Takes what waits, in equal shares of the spools as far as it goes.
    fn fill(&mut self) -> Vec<Sent> {
        let mut records = Vec::new();
        let mut ids = HashSet::with_capacity(EVENTS_PER_REQUEST);
        let mut bytes = self.max_bytes;
        let suspected: HashSet<u32> = self.suspects.iter().flatten().map(Sent::group).collect();
        let waits = |meta: &Meta| suspected.contains(&meta.group);
        let order: Vec<SpoolId> = self
            .queues
            .range(self.turn..)
            .chain(self.queues.range(..self.turn))
            .filter_map(|(spool, queue)| (queue.len() > 0).then_some(*spool))
            .collect();
        loop {
            let room = EVENTS_PER_REQUEST - records.len();
            let share = (room / order.len().max(1)).max(1);
            let mut took_some = false;
            for spool in &order {
                let room = share.min(EVENTS_PER_REQUEST - records.len());
                let Some(queue) = self.queues.get_mut(spool) else { continue };
                let taken = queue.take(room, &mut bytes, cost, waits, &mut ids);
                took_some |= !taken.is_empty();
                records.extend(taken.into_iter().map(|item| Sent { spool: *spool, item }));
            }
            if self.refusals.any_apart() {
                self.part(&mut records);
            }
            if !took_some || records.len() == EVENTS_PER_REQUEST {
                break;
            }
        }
        self.turn = order.first().map_or(0, |first| first + 1);
        records
    }

    /// Moves the records of groups that travel apart to where they wait.
    fn part(&mut self, records: &mut Vec<Sent>) {
        for sent in records.extract_if(.., |sent| self.refusals.is_apart(sent.group())) {
            self.apart.entry(sent.group()).or_default().push(sent);
        }
    }

    /// Has the attempt written down where that is news, and sends the request.
    fn prepare(&mut self, request: Request, now: Now, actions: &mut Vec<Action>) {
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
        for sent in &mut request.records {
            sent.item.attempts += 1;
        }
        self.counts.requests += 1;
        self.budget.started(now.mono);
        let records = request.records.iter().map(Sent::at).collect();
        actions.push(Action::Send { request: request.token, records, stamps });
        self.under_way = Some(request);
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
        } else if let Some(sent) = self.setting_aside.remove(&token)
            && !ok
        {
            // It will be refused once more, and then perhaps there is room for the dead letter.
            self.not_before = now.mono + STORAGE_RETRY_MS;
            self.suspects.push_front(vec![sent]);
        }
    }
}

/// The bytes that a record takes of a request.
fn cost(meta: &Meta) -> usize {
    meta.json_bytes + RequestBody::EXTRA_BYTES_PER_EVENT
}

#[cfg(test)]
mod tests;
