//! What follows where the key or the address is refused.
//!
//! That may be so, and nothing can be sent until it is right. Or something on the way, a firewall or a relay,
//! dislikes what one request holds, and answers in the same way. Which of the two it is shows in whether
//! others are taken: so what is refused is told apart as what the server fails on,
//! until a control, or all there is, is refused as well. That a customer who was found so is refused once more
//! says nothing of the key. And while everything is refused, one call a minute is tried, of one customer after
//! another; a look-up before it, where there is one to make, shows whether it is the key.

use super::failing::Evidence;
use super::{
    Action, Answer, Delivery, EVENTS_PER_REQUEST, Failing, FailingSet, HoldReason, Now, Purpose,
    Request, Sent, Trouble,
};

/// So many calls show that everything is denied.
const CONTROLS: u32 = 3;

/// So many sets in a row, with nothing taken in between: what others showed may be so no longer.
const MOST_DENIALS: u32 = 24;

/// What is known of the key and the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// The API read the last request, or none was made yet.
    Given,
    /// One was refused, which may be for what it holds.
    Doubted,
    /// Everything is refused.
    Denied,
}

impl Delivery {
    pub(super) fn denied(
        &mut self,
        request: Request,
        answer: &Answer,
        why: HoldReason,
        words: &str,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        self.not_before = now.mono + answer.asks_to_wait_ms();
        self.denials += u32::from(matches!(request.purpose, Purpose::Failing(_)));
        if self.was_at_fault(&request) {
            return self.failed(request, Failing::Denied, true, now, actions);
        }
        let was_read = matches!(answer, Answer::Response(_));
        let may_be_right = self.access != Access::Denied && was_read;
        match request.purpose {
            Purpose::Deliver if may_be_right => self.note_batch(false),
            Purpose::TellApart | Purpose::Apart | Purpose::Failing(_) if may_be_right => {}
            Purpose::Control if may_be_right && self.may_control_again() => {
                return self.return_control(request.records, now);
            }
            _ => return self.deny(request, why, words, now, actions),
        }
        let apart = matches!(request.purpose, Purpose::Apart);
        if let [alone] = request.records[..]
            && alone.item.denied_at.is_some_and(|then| self.passed_since(then))
        {
            // Others were taken since it was refused alone.
            let set = self.new_set(apart);
            return self.tell_apart_failing(vec![alone], set, Evidence::OthersPass, now, actions);
        }
        let set = match request.purpose {
            Purpose::Failing(set) => set,
            _ => self.new_set(apart),
        };
        let set = FailingSet {
            // What was taken before shows no more: without a control the set would be sent again and again.
            acknowledged: self.acknowledged,
            failures: set.failures + 1,
            answered: true,
            denied: true,
            controlled: false,
            ..set
        };
        let (purpose, apart) = (Purpose::Failing(set), set.apart);
        self.access = Access::Doubted;
        let others_wait =
            self.failing.iter().any(|(other, _)| other.apart == apart && other.failures == 0);
        if others_wait {
            // The other half shows as much as a control.
            self.failing.push_back((set, request.records));
        } else if self.may_control(&request.records) {
            self.failing.push_front((set, request.records));
        } else {
            self.deny(Request { purpose, ..request }, why, words, now, actions);
        }
    }

    /// Whether it is known already that these are refused where others are taken: that they are once more
    /// says nothing of the key.
    fn was_at_fault(&self, request: &Request) -> bool {
        match (&request.purpose, &request.records[..]) {
            (Purpose::Apart, [first, ..]) => self.failing_groups.contains_key(&first.group()),
            (Purpose::Failing(set), _) => {
                self.denials < MOST_DENIALS && self.passed_since(set.acknowledged)
            }
            (Purpose::Parked(_), _) => true,
            _ => false,
        }
    }

    /// Whether there is a call that can show whether it is right to refuse these.
    fn may_control(&self, records: &[Sent]) -> bool {
        let is_other = |group: &u64| records.iter().all(|sent| sent.group() != *group);
        let suspected = self.suspected();
        records.len() > 1 || self.groups_beyond_suspicion().iter().chain(&suspected).any(is_other)
    }

    /// Of some customers all may be denied: a control is tried of several.
    fn may_control_again(&mut self) -> bool {
        let Some((set, _)) = self.failing.front_mut() else { return false };
        set.controls_denied += 1;
        set.controlled = false;
        set.controls_denied < CONTROLS
    }

    fn return_control(&mut self, control: Vec<Sent>, now: Now) {
        let Some((_, records)) = self.failing.front_mut() else {
            return self.return_to_queues(control, now);
        };
        let groups: Vec<u64> = records.iter().map(Sent::group).collect();
        let (own, others): (Vec<Sent>, Vec<Sent>) =
            control.into_iter().partition(|sent| groups.contains(&sent.group()));
        // Before the others: the next control is another one.
        records.splice(0..0, own);
        self.return_to_queues(others, now);
    }

    /// The API read a request, whether or not it took it: what was denied alone meanwhile may be at fault.
    pub(super) fn access_is_given(&mut self, now: Now) {
        self.denials = 0;
        if let Some(Trouble::KeyRefused { .. } | Trouble::WrongAddress) = self.trouble {
            self.trouble = None;
        }
        if std::mem::replace(&mut self.access, Access::Given) != Access::Denied {
            return;
        }
        self.unpark(now);
        let mut denied = Vec::new();
        for (spool, queue) in &mut self.queues {
            let items = queue.take_denied().into_iter();
            denied.extend(items.map(|item| Sent { spool: *spool, item }));
        }
        let acknowledged = self.acknowledged.saturating_sub(1);
        for records in denied.chunks(EVENTS_PER_REQUEST) {
            let set = FailingSet { acknowledged, ..self.new_set(false) };
            self.failing.push_back((set, records.to_vec()));
        }
    }

    /// Nothing is taken: everything waits.
    fn deny(
        &mut self,
        mut request: Request,
        why: HoldReason,
        words: &str,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if let [alone] = &mut request.records[..] {
            alone.item.denied_at = Some(self.acknowledged);
            self.probed = alone.group();
        }
        self.access = Access::Denied;
        self.hold(why, words, now, actions);
        self.put_back(request, now);
        // What is being told apart would be tried as a whole: each of them may be the one that is taken.
        let failing = std::mem::take(&mut self.failing).into_iter().map(|(_, records)| records);
        let suspects = std::mem::take(&mut self.suspects);
        self.return_to_queues(failing.chain(suspects).flatten().collect(), now);
    }

    /// Of a doubt a control, or what is doubted: before anything else.
    pub(super) fn take_doubted(&mut self) -> Option<(Purpose, Vec<Sent>)> {
        if self.access != Access::Doubted {
            return None;
        }
        let apart = self.failing.front()?.0.apart;
        self.take_failing(apart)
    }

    /// One record that waits, of the group after the one that was tried last.
    pub(super) fn take_alone(&mut self) -> Vec<Sent> {
        let Some(group) = self.next_queued_group() else { return Vec::new() };
        self.probed = group;
        self.take_any_queued(|meta| meta.group == group).into_iter().collect()
    }

    /// One record of a group that travels apart; the others go back.
    pub(super) fn take_alone_apart(&mut self, now: Now) -> Vec<Sent> {
        let mut records = self.take_apart(now);
        if records.is_empty() {
            return records;
        }
        let alone = records.swap_remove(self.random.usize(..records.len()));
        self.return_apart(records);
        vec![alone]
    }
}
