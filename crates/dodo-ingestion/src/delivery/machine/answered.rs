//! What follows from the answer to a request.

use std::collections::BTreeMap;

use super::failing::Evidence;
use super::lookups::may_be_forgotten;
use super::{
    Action, AlarmKind, Answer, BACKOFF_BASE_MS, BACKOFF_MAX_MS, Cause, Delivery, ErrorKind,
    FAILURES_TO_TELL, Failing, HOLD_MS, HoldReason, Item, LatePolicy, Now, Purpose, Request, Sent,
    SpoolId, Trouble, Verdict, cost, judge, split,
};
use crate::clock::rfc3339;
use crate::delivery::queue::Unanswered;
use crate::delivery::size::LEAST;

/// Stamps keep a distance of some minutes from what the API refuses: less than this is no reason.
const STAMPS_MOVED_MS: i64 = 5_000;
/// Next to any server takes a record of so many bytes: one that does not may refuse everything.
const CERTAINLY_TAKEN: usize = 64 << 10;
/// An answer that is read so long after its request, as by a machine that slept, says nothing of the
/// server's clock now; and what it refused may be right by now.
const OLD_ANSWER_MS: u64 = 60_000;

impl Delivery {
    /// Returns records to where they came from.
    pub(super) fn put_back(&mut self, request: Request, now: Now) {
        match (request.purpose, &request.records[..]) {
            (_, []) => {}
            (Purpose::TellApart, _) => self.suspects.push_front(request.records),
            (Purpose::Apart, _) => self.return_apart(request.records),
            (Purpose::Failing(set), _) => self.keep_failing(set, request.records),
            (Purpose::Parked(parking), [alone]) => self.park_again(*alone, parking, now),
            (Purpose::Lookup(lookup), [alone]) => self.lookups.push_back((lookup, *alone)),
            _ => self.return_to_queues(request.records, now),
        }
    }

    pub(super) fn return_to_queues(&mut self, mut records: Vec<Sent>, now: Now) {
        records.sort_unstable_by_key(Sent::at);
        let mut by_spool: BTreeMap<SpoolId, Vec<Item>> = BTreeMap::new();
        for sent in records {
            by_spool.entry(sent.spool).or_default().push(sent.item);
        }
        for (spool, items) in by_spool {
            if let Some(queue) = self.queues.get_mut(&spool) {
                queue.put_back(items.into_iter(), now);
            }
        }
    }

    pub(super) fn answered(
        &mut self,
        mut request: Request,
        answer: &Answer,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let judged = judge(answer, request.records.len());
        // Of some the spool may be gone: there is nothing left to send, and who was to blame is not known.
        let sent = request.records.len();
        request.records.retain(|sent| self.queues.contains_key(&sent.spool));
        let is_whole = request.records.len() == sent;
        // An earlier key was refused. That says nothing of the one that is tried next.
        if request.key != self.key && matches!(judged.verdict, Verdict::Hold { .. }) {
            return self.put_back(request, now);
        }
        if let Purpose::Lookup(lookup) = &request.purpose {
            if let [sent] = request.records[..] {
                self.looked_up(lookup.clone(), sent, answer, now, actions);
            }
            return;
        }
        let is_old = request.under_way_ms(now) > OLD_ANSWER_MS;
        if let Some(server) = judged.server_time.filter(|_| !is_old) {
            self.skew.learn(server, now.wall);
        }
        if matches!(judged.verdict, Verdict::Refused { .. } | Verdict::TooLarge { .. }) {
            self.hold_off(answer.asks_to_wait_ms(), now);
        }
        let taken = matches!(judged.verdict, Verdict::Acknowledged);
        self.acknowledged += u64::from(taken);
        if request.key == self.key && (taken || matches!(judged.verdict, Verdict::Refused { .. })) {
            self.access_is_given(now);
        }
        match judged.verdict {
            Verdict::Acknowledged => {
                if self.failures >= FAILURES_TO_TELL {
                    self.unpark(now);
                }
                self.works_again();
                self.budget.accepted(now.mono, judged.remaining);
                self.size.accepted(now.mono);
                if self.refusals.taken(&request.records) {
                    let message = "calls are taken again: the refusal of all of them is over";
                    actions
                        .push(Action::Alarm { kind: AlarmKind::Resumed, message: message.into() });
                }
                self.taken_of_failing_groups(&request, now);
                match request.purpose {
                    Purpose::Deliver => self.note_batch(true),
                    Purpose::Control => self.took_control(now, actions),
                    _ => {}
                }
                self.count_restamped(&request, actions);
                let twins = self.take_twins(&request.records);
                let records = request.records.iter().chain(&twins).map(Sent::at).collect();
                actions.push(Action::Settle { records });
            }
            Verdict::Retry { after_ms, limited, unanswered, failing, words } => {
                if unanswered {
                    let first = request.started;
                    for sent in &mut request.records {
                        let unanswered = &mut sent.item.unanswered;
                        unanswered.get_or_insert(Unanswered { first, last: now.mono }).last =
                            now.mono;
                    }
                }
                // That the server fails on what it fails on always is no reason for others to wait,
                // unless it asks for that.
                let at_fault = self.is_at_fault(&request, failing);
                if at_fault {
                    self.not_before = now.mono + answer.asks_to_wait_ms();
                } else {
                    self.back_off(after_ms as u64, limited, &words, now, actions);
                }
                let failing = if is_whole { failing } else { Failing::No };
                self.failed(request, failing, at_fault, now, actions);
            }
            Verdict::Refused { .. } | Verdict::TooLarge { .. } | Verdict::Hold { .. }
                if !is_whole =>
            {
                self.put_back(request, now);
            }
            Verdict::Hold { why, words } => self.denied(request, answer, why, &words, now, actions),
            Verdict::Refused { .. } if is_old && !request.asked_again => {
                request.asked_again = true;
                request.token = self.token();
                self.resend(request, now, actions);
            }
            Verdict::Refused { .. } if !request.restamped && self.stamps_moved(&request, now) => {
                request.restamped = true;
                request.token = self.token();
                self.resend(request, now, actions);
            }
            Verdict::Refused { status, words } => {
                let cause = Cause::new(ErrorKind::Rejected, Some(status), &words);
                self.refused(request, cause, now, actions);
            }
            Verdict::TooLarge { words } => {
                self.too_large(request, &words, now, actions);
            }
        }
    }

    /// A request was not taken, and is to be made again.
    pub(super) fn failed(
        &mut self,
        mut request: Request,
        failing: Failing,
        at_fault: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if matches!(request.purpose, Purpose::Deliver) && failing != Failing::No {
            self.note_batch(false);
        }
        let apart = matches!(request.purpose, Purpose::Apart);
        match request.purpose {
            _ if failing == Failing::No => self.put_back(request, now),
            Purpose::Control => {
                for control in request.records {
                    self.failed_control(control, now);
                }
            }
            Purpose::Apart if at_fault => {
                self.failed_apart(request.records, failing, now, actions);
            }
            Purpose::Deliver | Purpose::TellApart | Purpose::Apart
                if self.fails_again(&mut request.records, apart) =>
            {
                let answered = failing == Failing::Answered;
                let evidence = if answered { Evidence::Answer } else { Evidence::Silence };
                let set = self.new_set(apart);
                self.tell_apart_failing(request.records, set, evidence, now, actions);
            }
            Purpose::Failing(set) => self.failed_set(set, failing, request.records, now, actions),
            // The others of them may be taken, and show that these are at fault.
            Purpose::TellApart => self.suspects.push_back(request.records),
            Purpose::Parked(parking) if at_fault => {
                for sent in request.records {
                    self.park(sent, Some(parking), now, actions);
                }
            }
            _ => self.put_back(request, now),
        }
    }

    /// The API answers as it should.
    pub(super) fn works_again(&mut self) {
        self.failures = 0;
        self.trouble = None;
        self.not_before = 0;
    }

    pub(super) fn hold(
        &mut self,
        why: HoldReason,
        words: &str,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let (trouble, kind, what) = match why {
            HoldReason::Authentication { status } => {
                (Trouble::KeyRefused { status }, AlarmKind::Authentication, "the API key")
            }
            HoldReason::Address => (Trouble::WrongAddress, AlarmKind::Address, "the address"),
        };
        let message = format!(
            "{what} is not accepted; calls are kept and it is tried again every minute: {words}"
        );
        actions.push(Action::Alarm { kind, message });
        self.trouble = Some(trouble);
        self.hold_off(HOLD_MS, now);
    }

    /// Makes no request for so long, or for longer if that was asked for.
    fn hold_off(&mut self, ms: u64, now: Now) {
        self.not_before = self.not_before.max(now.mono + ms);
    }

    /// Whether the stamps that a request went with may be what it was refused for: the clock was found
    /// to be wrong, or the answer came long after the request was made.
    fn stamps_moved(&self, request: &Request, now: Now) -> bool {
        let Some(then) = request.stamps else { return false };
        let now = self.skew.base(now.wall);
        let moved = |occurred_at| {
            let by = now.stamp(occurred_at).at.saturating_sub(then.stamp(occurred_at).at);
            by.abs() >= STAMPS_MOVED_MS
        };
        request.records.iter().any(|sent| moved(sent.item.meta.occurred_at))
    }

    /// The same records at once, with other stamps, if the budget allows and the answer did not take so
    /// long that some may not be sent any more; else as if new.
    fn resend(&mut self, request: Request, now: Now, actions: &mut Vec<Action>) {
        let base = self.skew.base(now.wall);
        let sets_aside = self.settings.late == LatePolicy::DeadLetter;
        let is_late = |sent: &Sent| {
            may_be_forgotten(sent, now) || sets_aside && base.is_late(sent.item.meta.occurred_at)
        };
        if !request.records.iter().any(is_late)
            && self.budget.next_start(now.mono, true) <= now.mono
        {
            self.send(request, now, actions);
        } else {
            self.put_back(request, now);
        }
    }

    pub(super) fn back_off(
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
            self.trouble = Some(Trouble::Unreachable);
            let message = format!(
                "{} requests failed in a row; calls are kept and tried again: {words}",
                self.failures
            );
            actions.push(Action::Alarm { kind: AlarmKind::Unreachable, message });
        }
    }

    /// Makes requests smaller, and sets aside what is too large alone.
    fn too_large(&mut self, request: Request, words: &str, now: Now, actions: &mut Vec<Action>) {
        let bytes: usize = request.records.iter().map(|sent| cost(&sent.item.meta)).sum();
        let kind = if bytes < LEAST { ErrorKind::Rejected } else { ErrorKind::TooLarge };
        let cause = Cause::new(kind, Some(413), words);
        match (&request.purpose, &request.records[..]) {
            (Purpose::Probe, _) => self.refused(request, cause, now, actions),
            (_, [alone]) if bytes > CERTAINLY_TAKEN => self.set_aside(*alone, cause, now, actions),
            (_, [_]) => self.refused(request, cause, now, actions),
            (Purpose::Deliver, _) if self.size.too_large(bytes, now.mono) => {
                self.put_back(request, now);
            }
            _ => self.tell_apart(request),
        }
    }

    /// Finds out who is to blame, and sets that aside.
    fn refused(&mut self, request: Request, cause: Cause, now: Now, actions: &mut Vec<Action>) {
        match (&request.purpose, &request.records[..]) {
            (Purpose::Probe, [alone]) => {
                self.hold_off(HOLD_MS, now);
                self.probed_in_vain(*alone);
            }
            (Purpose::Apart, [first, ..]) if self.refusals.is_condemned(first.group()) => {
                let cause = Cause { by_group: true, ..cause };
                let twins = self.take_twins_apart(first.group(), &request.records);
                for sent in request.records.iter().chain(&twins) {
                    self.set_aside(*sent, cause.clone(), now, actions);
                }
            }
            (_, [alone]) => {
                self.set_aside(*alone, cause.clone(), now, actions);
                if self.refusals.refused_alone(alone.group()) {
                    self.stop(&cause.message, now, actions);
                } else if self.refusals.is_apart(alone.group()) {
                    let mut suspects = std::mem::take(&mut self.suspects);
                    for records in &mut suspects {
                        self.part(records);
                    }
                    suspects.retain(|records| !records.is_empty());
                    self.suspects = suspects;
                }
            }
            (Purpose::Apart, [first, rest @ ..]) if self.refusals.is_apart(first.group()) => {
                // Another one alone says more of the group than its halves would.
                self.suspects.push_front(vec![*first]);
                self.return_apart(rest.to_vec());
            }
            _ => self.tell_apart(request),
        }
    }

    /// What was refused together is tried in parts: after those that are being told apart, or in the
    /// place of the one that it is part of.
    fn tell_apart(&mut self, request: Request) {
        let [first, second] = split(request.records);
        if matches!(request.purpose, Purpose::Deliver | Purpose::Failing(_)) {
            self.suspects.extend([first, second]);
        } else {
            self.suspects.push_front(second);
            self.suspects.push_front(first);
        }
    }

    /// Everything is refused: waits, and probes, and sets nothing more aside.
    fn stop(&mut self, words: &str, now: Now, actions: &mut Vec<Action>) {
        let message = format!(
            "calls of many customers are refused and none is taken; delivery stops, calls are \
             kept, and one a minute is tried: {words}"
        );
        actions.push(Action::Alarm { kind: AlarmKind::Systemic, message });
        self.hold_off(HOLD_MS, now);
        let suspects = std::mem::take(&mut self.suspects);
        let failing = std::mem::take(&mut self.failing).into_iter().map(|(_, records)| records);
        let mut records: Vec<Sent> = suspects.into_iter().chain(failing).flatten().collect();
        records.extend(self.give_up_setting_aside());
        records.extend(self.unwritten.drain(..).map(|(_, sent)| sent));
        self.return_to_queues(records, now);
    }

    fn count_restamped(&mut self, request: &Request, actions: &mut Vec<Action>) {
        let Some(stamps) = request.stamps else { return };
        let times = request.records.iter().map(|sent| sent.item.meta.occurred_at);
        let late: Vec<_> = times.filter(|at| stamps.is_late(*at)).collect();
        if late.is_empty() {
            return;
        }
        self.counts.restamped += late.len() as u64;
        let message = format!(
            "{} calls were older than 55 minutes and billed with a later time; theirs is kept as \
             original_timestamp",
            late.len()
        );
        actions.push(Action::Alarm { kind: AlarmKind::Restamped, message });
        let month = |wall| rfc3339(wall)[..7].to_owned();
        let crosses = |at: &i64| {
            let stamp = stamps.stamp(*at);
            stamp.moved_from.is_some_and(|from| month(from) != month(stamp.at))
        };
        let crossing = late.iter().filter(|at| crosses(at)).count();
        if crossing > 0 {
            let message = format!(
                "{crossing} calls of an earlier month (UTC) were billed in this one, because they \
                 could not be sent in time"
            );
            actions.push(Action::Alarm { kind: AlarmKind::BilledInLaterMonth, message });
        }
    }
}
