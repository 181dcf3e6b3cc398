//! The state machine itself.

use std::collections::{BTreeMap, HashSet};

use super::answer::{Answer, HoldReason, Verdict, judge};
use super::budget::Budget;
use super::queue::{Item, Queue};
use super::stamp::{Skew, StampBase};
use super::{Action, Cause, Input, Meta, RecordRef, RequestBody, SpoolId, Token};
use crate::alarm::AlarmKind;
use crate::clock::{MonoMs, Now, WallMs};
use crate::config::LatePolicy;
use crate::error::ErrorKind;
use crate::validate::limits::EVENTS_PER_REQUEST;

/// Records of one spool that are looked at ahead of time: one request's under way, one's to come.
const LOOKAHEAD: usize = 2 * EVENTS_PER_REQUEST;
/// The size of a request until the server says that it is too large. The published limit is none.
const MAX_REQUEST_BYTES: usize = 1_000_000;
/// What is learnt from a 413 goes no lower; below it, the records of that one request are told apart.
const LEAST_REQUEST_BYTES: usize = 4_096;
/// How long to wait before looking again whether a key or an address works.
const HOLD_MS: MonoMs = 60_000;
const BACKOFF_BASE_MS: u64 = 500;
const BACKOFF_MAX_MS: u64 = 60_000;
/// What could not be stored is tried again after this.
const STORAGE_RETRY_MS: MonoMs = 5_000;
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

/// One record of a request or of the suspects.
#[derive(Clone, Copy, Debug)]
struct Sent {
    spool: SpoolId,
    item: Item,
}

impl Sent {
    fn at(&self) -> RecordRef {
        RecordRef { spool: self.spool, seq: self.item.meta.seq }
    }
}

#[derive(Debug)]
struct Request {
    token: Token,
    records: Vec<Sent>,
    /// Its records were refused together with others, and are being told apart.
    suspect: bool,
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
    /// Groups of records that were refused, the next to be tried last.
    suspects: Vec<Vec<Sent>>,
    /// Waiting for its attempt to be written down.
    preparing: Option<Request>,
    under_way: Option<Request>,
    setting_aside: BTreeMap<Token, Sent>,
    budget: Budget,
    skew: Skew,
    max_bytes: usize,
    failures: u32,
    held: Option<HoldReason>,
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
            suspects: Vec::new(),
            preparing: None,
            under_way: None,
            setting_aside: BTreeMap::new(),
            budget,
            skew: Skew::default(),
            max_bytes: MAX_REQUEST_BYTES,
            failures: 0,
            held: None,
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

    /// Takes note of what happened and says what is to be done.
    pub(crate) fn handle(&mut self, input: Input, now: Now, actions: &mut Vec<Action>) {
        match input {
            Input::Tick => self.ask_for_records(actions),
            Input::Available { spool, metas } => self.available(spool, metas, now, actions),
            Input::Stored { token, ok } => self.stored(token, ok, now, actions),
            Input::Answer { request, answer } => {
                if let Some(request) = self.under_way.take_if(|sent| sent.token == request) {
                    self.answered(request, &answer, now, actions);
                    self.ask_for_records(actions);
                }
            }
            Input::KeyChanged => {
                if self.held.take().is_some() {
                    self.not_before = 0;
                }
            }
            Input::SpoolGone { spool } => {
                self.queues.remove(&spool);
            }
        }
        self.send_if_due(now, actions);
    }

    fn ask_for_records(&self, actions: &mut Vec<Action>) {
        for (spool, queue) in &self.queues {
            if let Some(records) = LOOKAHEAD.checked_sub(queue.len()).filter(|room| *room > 0) {
                actions.push(Action::Read { spool: *spool, records });
            }
        }
    }

    fn available(&mut self, spool: SpoolId, metas: Vec<Meta>, now: Now, actions: &mut Vec<Action>) {
        let queue = self.queues.entry(spool).or_default();
        let mut flushes = Vec::new();
        for meta in metas {
            if meta.flush {
                queue.flush(meta.seq, now);
                flushes.push(RecordRef { spool, seq: meta.seq });
            } else {
                queue.push(meta, now);
            }
        }
        if !flushes.is_empty() {
            actions.push(Action::Settle { records: flushes });
        }
    }

    /// Starts the next request if there is one, or sets when to look again.
    fn send_if_due(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.wake_at = None;
        if self.preparing.is_some() || self.under_way.is_some() {
            return;
        }
        let due = if self.suspects.is_empty() {
            self.queues.values().filter_map(Queue::due).min()
        } else {
            Some(now.mono)
        };
        let Some(due) = due else { return };
        let urgent = self.queues.values().any(Queue::is_urgent);
        let start = self.budget.next_start(now.mono, urgent);
        let at = due.max(self.not_before).max(start);
        if at > now.mono {
            self.wake_at = Some(at);
            return;
        }
        if let Some(request) = self.next_request(now, actions) {
            self.prepare(request, now, actions);
        }
    }

    fn next_request(&mut self, now: Now, actions: &mut Vec<Action>) -> Option<Request> {
        let suspects = self.suspects.pop();
        let suspect = suspects.is_some();
        let mut records = suspects.unwrap_or_else(|| self.fill());
        if self.settings.late == LatePolicy::DeadLetter {
            let base = self.skew.base(now.wall);
            let late = |sent: &Sent| base.is_late(sent.item.meta.occurred_at);
            for sent in records.extract_if(.., |sent| late(sent)) {
                let message = "older than the hour that the billing API takes, and late = \
                               \"dead_letter\" was chosen";
                self.set_aside(sent, ErrorKind::Rejected, None, message, actions);
            }
        }
        if records.is_empty() {
            return None;
        }
        let token = self.token();
        Some(Request { token, records, suspect, restamped: false, stamps: None })
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
        let order: Vec<SpoolId> = self
            .queues
            .range(self.turn..)
            .chain(self.queues.range(..self.turn))
            .filter_map(|(spool, queue)| (queue.len() > 0).then_some(*spool))
            .collect();
        loop {
            let before = records.len();
            let share = ((EVENTS_PER_REQUEST - before) / order.len().max(1)).max(1);
            for spool in &order {
                let room = share.min(EVENTS_PER_REQUEST - records.len());
                let Some(queue) = self.queues.get_mut(spool) else { continue };
                let taken = queue.take(room, &mut bytes, cost, &mut ids);
                records.extend(taken.into_iter().map(|item| Sent { spool: *spool, item }));
            }
            if records.len() == before || records.len() == EVENTS_PER_REQUEST {
                break;
            }
        }
        self.turn = order.first().map_or(0, |first| first + 1);
        records
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
            self.suspects.push(vec![sent]);
        }
    }

    fn put_back(&mut self, request: Request, now: Now) {
        if request.suspect {
            self.suspects.push(request.records);
            return;
        }
        let mut by_spool: BTreeMap<SpoolId, Vec<Item>> = BTreeMap::new();
        for sent in request.records {
            by_spool.entry(sent.spool).or_default().push(sent.item);
        }
        for (spool, items) in by_spool {
            if let Some(queue) = self.queues.get_mut(&spool) {
                queue.put_back(items.into_iter(), now);
            }
        }
    }

    fn answered(
        &mut self,
        mut request: Request,
        answer: &Answer,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let judged = judge(answer, request.records.len());
        let stamps_move =
            judged.server_time.is_some_and(|server| self.skew.learn(server, now.wall));
        match judged.verdict {
            Verdict::Acknowledged => {
                self.failures = 0;
                self.held = None;
                self.not_before = 0;
                self.budget.accepted(now.mono, judged.remaining);
                self.count_restamped(&request, actions);
                let records = request.records.iter().map(Sent::at).collect();
                actions.push(Action::Settle { records });
            }
            Verdict::Retry { after_ms, limited, unanswered, words } => {
                for sent in &mut request.records {
                    sent.item.uncertain |= unanswered;
                }
                self.back_off(after_ms as u64, limited, &words, now, actions);
                self.put_back(request, now);
            }
            Verdict::Hold { why, words } => {
                let (kind, what) = match why {
                    HoldReason::Authentication => (AlarmKind::Authentication, "the API key"),
                    HoldReason::Address => (AlarmKind::Address, "the address"),
                };
                let message = format!(
                    "{what} is not accepted; calls are kept and it is tried again every minute: \
                     {words}"
                );
                actions.push(Action::Alarm { kind, message });
                self.held = Some(why);
                self.not_before = now.mono + HOLD_MS;
                self.put_back(request, now);
            }
            Verdict::Refused { .. } if stamps_move && !request.restamped => {
                request.restamped = true;
                request.token = self.token();
                self.resend(request, now, actions);
            }
            Verdict::Refused { status, words } => {
                self.tell_apart(request, ErrorKind::Rejected, status, &words, actions);
            }
            Verdict::TooLarge { words } => {
                let bytes: usize = request.records.iter().map(|sent| cost(&sent.item.meta)).sum();
                let learnt = bytes.min(self.max_bytes) / 2;
                if request.suspect || request.records.len() == 1 || learnt < LEAST_REQUEST_BYTES {
                    self.tell_apart(request, ErrorKind::TooLarge, 413, &words, actions);
                } else {
                    self.max_bytes = learnt;
                    self.put_back(request, now);
                }
            }
        }
    }

    /// The same records at once, with other stamps; if the budget allows, else as if new.
    fn resend(&mut self, request: Request, now: Now, actions: &mut Vec<Action>) {
        if self.budget.next_start(now.mono, true) <= now.mono {
            self.send(request, now, actions);
        } else {
            self.put_back(request, now);
        }
    }

    fn back_off(
        &mut self,
        at_least_ms: u64,
        limited: bool,
        words: &str,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        self.failures = self.failures.saturating_add(1);
        self.counts.retries += 1;
        if limited {
            self.budget.limited(now.mono);
        }
        // Full jitter: any time up to the bound, so that hosts that failed together do not return
        // together.
        let bound = BACKOFF_BASE_MS.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX_MS);
        self.not_before = now.mono + at_least_ms.max(self.random.u64(..=bound));
        if self.failures >= FAILURES_TO_TELL {
            let message = format!(
                "{} requests failed in a row; calls are kept and tried again: {words}",
                self.failures
            );
            actions.push(Action::Alarm { kind: AlarmKind::Unreachable, message });
        }
    }

    /// Halves what was refused together until the culprit stands alone, and sets that aside.
    fn tell_apart(
        &mut self,
        request: Request,
        kind: ErrorKind,
        status: u16,
        words: &str,
        actions: &mut Vec<Action>,
    ) {
        let mut records = request.records;
        if let [alone] = records[..] {
            self.set_aside(alone, kind, Some(status), words, actions);
        } else {
            let second = records.split_off(records.len() / 2);
            self.suspects.extend([second, records]);
        }
    }

    fn set_aside(
        &mut self,
        sent: Sent,
        kind: ErrorKind,
        status: Option<u16>,
        message: &str,
        actions: &mut Vec<Action>,
    ) {
        let token = self.token();
        let Item { attempts, uncertain, .. } = sent.item;
        let cause = Cause { kind, status, message: message.to_owned(), attempts, uncertain };
        actions.push(Action::SetAside { token, record: sent.at(), cause });
        let message = format!("a call was set aside among the dead letters: {message}");
        actions.push(Action::Alarm { kind: AlarmKind::DeadLettered, message });
        self.setting_aside.insert(token, sent);
    }

    fn count_restamped(&mut self, request: &Request, actions: &mut Vec<Action>) {
        let Some(stamps) = request.stamps else { return };
        let times = request.records.iter().map(|sent| sent.item.meta.occurred_at);
        let late = times.filter(|at| stamps.is_late(*at)).count() as u64;
        if late > 0 {
            self.counts.restamped += late;
            let message = format!(
                "{late} calls were older than an hour and billed with a later time; theirs is \
                 kept as original_timestamp"
            );
            actions.push(Action::Alarm { kind: AlarmKind::Restamped, message });
        }
    }
}

/// The bytes that a record takes of a request.
fn cost(meta: &Meta) -> usize {
    meta.json_bytes + RequestBody::EXTRA_BYTES_PER_EVENT
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
