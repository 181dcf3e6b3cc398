//! Look-ups: asking the API whether it knows an event, where sending it again or setting it aside
//! could be wrong.
//!
//! * The API may forget an id after a day. What went unanswered so long ago that it is about to is
//!   looked up before it is sent again.
//! * What is about to be set aside and went unanswered before may be billed. It is looked up first,
//!   and set aside as `uncertain` if there is no answer.
//!
//! A look-up may be refused where requests are not: by a relay, or for a key, that is only good for
//! ingesting. So a refusal holds up nothing while requests are acknowledged; it is no answer.

use std::collections::{HashSet, VecDeque};

use super::{
    Action, Answer, Delivery, ErrorKind, Meta, MonoMs, Now, Purpose, Sent, SpoolId, Verdict,
};
use crate::clock::HOUR_MS;
use crate::delivery::Cause;
use crate::delivery::answer::{LookupVerdict, judge_lookup};
use crate::planted::{Fault, is_planted};

/// An hour less than the shortest time for which the API may remember an id.
const REMEMBERED_MS: i64 = 23 * HOUR_MS;
/// A server that gave no answer may still be at work: what it knows is asked after this.
const SETTLES_MS: MonoMs = 120_000;
/// What is looked up so often without an answer is set aside as uncertain.
const ATTEMPTS: u32 = 3;
const RETRY_MS: MonoMs = 60_000;

/// Why and when a record is looked up.
#[derive(Clone, Debug)]
pub(super) struct Lookup {
    /// Why it is set aside if the API does not know it; without a cause it is sent.
    cause: Option<Cause>,
    unanswered: u32,
    /// How many requests had been acknowledged when it was made, or tried last.
    acknowledged: u64,
    pub(super) not_before: MonoMs,
}

impl Lookup {
    /// Whether it is for a record that is to be set aside.
    pub(super) fn is_blamed(&self) -> bool {
        self.cause.is_some()
    }
}

/// Whether a record may be billed, and the API about to forget its id.
pub(super) fn may_be_forgotten(sent: &Sent, now: Now) -> bool {
    sent.item.unanswered.is_some_and(|unanswered| is_long_ago(unanswered.first, now))
}

fn is_long_ago(first: Now, now: Now) -> bool {
    // Either clock may have stood still or been set.
    let by_wall = now.wall.saturating_sub(first.wall);
    let by_mono = now.mono.saturating_sub(first.mono) as i64;
    by_wall.max(by_mono) >= REMEMBERED_MS && !is_planted(Fault::ResendAfterADay)
}

impl Delivery {
    /// Takes out of a queue what was read of an earlier sender, and would take the room of a request and leave
    /// it.
    pub(super) fn part_what_was_sent_long_ago(&mut self, spool: SpoolId, now: Now) {
        let Some(queue) = self.queues.get_mut(&spool) else { return };
        let forgets = |meta: &Meta| meta.maybe_sent.is_some_and(|first| is_long_ago(first, now));
        for item in queue.take_all(forgets) {
            self.look_up(Sent { spool, item }, None, now.mono);
        }
    }

    /// Takes out what may be billed and forgotten.
    pub(super) fn part_what_needs_a_lookup(&mut self, records: &mut Vec<Sent>, now: Now) {
        for sent in records.extract_if(.., |sent| may_be_forgotten(sent, now)) {
            self.look_up(sent, None, now.mono);
        }
    }

    /// Has a record looked up that is to be set aside.
    pub(super) fn look_up_before_setting_aside(&mut self, sent: Sent, cause: Cause, now: Now) {
        let last = sent.item.unanswered.map_or(now.mono, |unanswered| unanswered.last);
        self.look_up(sent, Some(cause), last + SETTLES_MS);
    }

    fn look_up(&mut self, sent: Sent, cause: Option<Cause>, not_before: MonoMs) {
        let acknowledged = self.acknowledged;
        self.lookups.push_back((Lookup { cause, unanswered: 0, acknowledged, not_before }, sent));
    }

    /// What is to be set aside first: of the others there may be very many. Of those any one of a group that the
    /// server does not fail on, and else any one, so that what is not taken afterwards holds up no sender after
    /// the other.
    pub(super) fn take_lookup(&mut self, now: Now) -> Option<(Purpose, Vec<Sent>)> {
        let at = self.blamed_due(now).or_else(|| {
            let failing = self.groups_that_fail();
            let all = self.lookups.iter().enumerate();
            let (fails, works): (Vec<_>, Vec<_>) = all
                .filter(|(_, (lookup, _))| lookup.not_before <= now.mono)
                .partition(|(_, (_, sent))| failing.contains(&sent.group()));
            let due = if works.is_empty() { fails } else { works };
            self.random.choice(due).map(|(at, _)| at)
        })?;
        let (lookup, sent) = self.lookups.remove(at)?;
        Some((Purpose::Lookup(lookup), vec![sent]))
    }

    /// Where one is that is to be set aside.
    pub(super) fn blamed_due(&self, now: Now) -> Option<usize> {
        self.lookups
            .iter()
            .position(|(lookup, _)| lookup.is_blamed() && lookup.not_before <= now.mono)
    }

    /// The spools, and the bytes, of what may be forgotten.
    pub(super) fn owed(&self) -> (HashSet<SpoolId>, usize) {
        let owed = self.lookups.iter().filter(|(lookup, _)| !lookup.is_blamed());
        owed.fold((HashSet::new(), 0), |(mut spools, bytes), (_, sent)| {
            spools.insert(sent.spool);
            (spools, bytes + sent.item.meta.json_bytes)
        })
    }

    /// Takes out what was to be set aside.
    pub(super) fn give_up_setting_aside(&mut self) -> Vec<Sent> {
        let (to_blame, others): (VecDeque<_>, _) = std::mem::take(&mut self.lookups)
            .into_iter()
            .partition(|(lookup, _)| lookup.is_blamed());
        self.lookups = others;
        to_blame.into_iter().map(|(_, sent)| sent).collect()
    }

    pub(super) fn looked_up(
        &mut self,
        lookup: Lookup,
        mut sent: Sent,
        answer: &Answer,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        match judge_lookup(answer, sent.item.meta.id_hash) {
            LookupVerdict::Known => {
                self.works_again();
                actions.push(Action::Settle { records: vec![sent.at()] });
            }
            LookupVerdict::Unknown => {
                self.works_again();
                sent.item.unanswered = None;
                match lookup.cause {
                    Some(cause) => self.set_aside_now(sent, cause, actions),
                    None => self.return_to_queues(vec![sent], now),
                }
            }
            LookupVerdict::Other(verdict) => {
                self.looked_up_in_vain(lookup, sent, verdict, answer, now, actions);
            }
        }
    }

    fn looked_up_in_vain(
        &mut self,
        mut lookup: Lookup,
        sent: Sent,
        verdict: Verdict,
        answer: &Answer,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let others_pass = lookup.acknowledged < self.acknowledged;
        let responded = matches!(answer, Answer::Response(_));
        let (counts, words) = match verdict {
            Verdict::Retry { after_ms, limited, words, .. } => {
                self.back_off(after_ms as u64, limited, &words, now, actions);
                // What is to be sent again waits for as long as nothing gets through.
                (lookup.is_blamed() || others_pass && responded && !limited, words)
            }
            Verdict::Hold { why, words } if !others_pass => {
                self.hold(why, &words, now, actions);
                (false, words)
            }
            Verdict::Hold { words, .. }
            | Verdict::Refused { words, .. }
            | Verdict::TooLarge { words } => (true, words),
            Verdict::Acknowledged => (true, String::new()), // an answer to a look-up is never that
        };
        lookup.unanswered += u32::from(counts);
        lookup.acknowledged = self.acknowledged;
        lookup.not_before = now.mono + RETRY_MS;
        if lookup.unanswered < ATTEMPTS {
            self.lookups.push_back((lookup, sent));
            return;
        }
        let cause = lookup.cause.unwrap_or_else(|| {
            let message = format!(
                "it went unanswered a day ago, so it may be billed, and the billing API does not \
                 say whether it is: {words}"
            );
            Cause::new(ErrorKind::Rejected, None, &message)
        });
        self.set_aside_now(sent, cause, actions);
    }
}
