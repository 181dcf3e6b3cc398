//! What follows from the answer to a request.

use std::collections::BTreeMap;

use super::{
    Action, AlarmKind, Answer, BACKOFF_BASE_MS, BACKOFF_MAX_MS, Cause, Delivery, ErrorKind,
    FAILURES_TO_TELL, HOLD_MS, HoldReason, Item, LEAST_REQUEST_BYTES, Now, Purpose, Request, Sent,
    SpoolId, Verdict, cost, judge, split,
};

impl Delivery {
    /// Returns records to where they came from.
    pub(super) fn put_back(&mut self, request: Request, now: Now) {
        match request.purpose {
            Purpose::TellApart => self.suspects.push_front(request.records),
            Purpose::Apart => {
                for sent in request.records {
                    self.apart.entry(sent.group()).or_default().push(sent);
                }
            }
            Purpose::Deliver | Purpose::Probe => self.return_to_queues(request.records, now),
        }
    }

    fn return_to_queues(&mut self, mut records: Vec<Sent>, now: Now) {
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
        let stamps_move =
            judged.server_time.is_some_and(|server| self.skew.learn(server, now.wall));
        match judged.verdict {
            Verdict::Acknowledged => {
                self.failures = 0;
                self.held = false;
                self.not_before = 0;
                self.budget.accepted(now.mono, judged.remaining);
                if self.refusals.taken(&request.records) {
                    let message = "calls are taken again: the refusal of all of them is over";
                    actions
                        .push(Action::Alarm { kind: AlarmKind::Resumed, message: message.into() });
                }
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
                self.held = true;
                self.not_before = now.mono + HOLD_MS;
                self.put_back(request, now);
            }
            Verdict::Refused { .. } if stamps_move && !request.restamped => {
                request.restamped = true;
                request.token = self.token();
                self.resend(request, now, actions);
            }
            Verdict::Refused { status, words } => {
                self.refused(request, status, &words, now, actions);
            }
            Verdict::TooLarge { words } => {
                let bytes: usize = request.records.iter().map(|sent| cost(&sent.item.meta)).sum();
                let learnt = bytes.min(self.max_bytes) / 2;
                if let [alone] = request.records[..] {
                    self.set_aside(alone, ErrorKind::TooLarge, Some(413), &words, false, actions);
                } else if request.purpose != Purpose::Deliver || learnt < LEAST_REQUEST_BYTES {
                    self.suspects.extend(split(request.records));
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

    /// Finds out who is to blame, and sets that aside.
    fn refused(
        &mut self,
        request: Request,
        status: u16,
        words: &str,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        match (request.purpose, &request.records[..]) {
            (Purpose::Probe, _) => {
                self.not_before = now.mono + HOLD_MS;
                self.put_back(request, now);
            }
            (Purpose::Apart, [first, ..]) if self.refusals.is_condemned(first.group()) => {
                for sent in &request.records {
                    let kind = ErrorKind::Rejected;
                    self.set_aside(*sent, kind, Some(status), words, true, actions);
                }
            }
            (_, [alone]) => {
                self.set_aside(*alone, ErrorKind::Rejected, Some(status), words, false, actions);
                if self.refusals.refused_alone(alone.group()) {
                    self.stop(words, now, actions);
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
                self.apart.entry(first.group()).or_default().extend(rest);
            }
            (Purpose::Deliver, _) => self.suspects.extend(split(request.records)),
            _ => {
                let [first, second] = split(request.records);
                self.suspects.push_front(second);
                self.suspects.push_front(first);
            }
        }
    }

    /// Everything is refused: waits, and probes, and sets nothing more aside.
    fn stop(&mut self, words: &str, now: Now, actions: &mut Vec<Action>) {
        let message = format!(
            "calls of many customers are refused and none is taken; delivery stops, calls are \
             kept, and one a minute is tried: {words}"
        );
        actions.push(Action::Alarm { kind: AlarmKind::Systemic, message });
        self.not_before = now.mono + HOLD_MS;
        let suspects = std::mem::take(&mut self.suspects);
        let mut records: Vec<Sent> = suspects.into_iter().flatten().collect();
        records.extend(std::mem::take(&mut self.apart).into_values().flatten());
        self.return_to_queues(records, now);
    }

    pub(super) fn set_aside(
        &mut self,
        sent: Sent,
        kind: ErrorKind,
        status: Option<u16>,
        message: &str,
        by_group: bool,
        actions: &mut Vec<Action>,
    ) {
        let token = self.token();
        let Item { attempts, uncertain, .. } = sent.item;
        let message = message.to_owned();
        let cause = Cause { kind, status, message, attempts, uncertain, by_group };
        let message = format!("a call was set aside among the dead letters: {}", cause.message);
        actions.push(Action::SetAside { token, record: sent.at(), cause });
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
