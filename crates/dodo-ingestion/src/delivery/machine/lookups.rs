//! Look-ups: asking the API whether it knows an event, where sending it again or setting it aside
//! could be wrong.
//!
//! * The API may forget an id after a day. What went unanswered so long ago that it is about to is
//!   looked up before it is sent again.
//! * What is about to be set aside and went unanswered before may be billed. It is looked up first,
//!   and set aside as `uncertain` if there is no answer.

use std::collections::VecDeque;

use super::{Action, Answer, Delivery, MonoMs, Now, Purpose, Sent, Verdict};
use crate::clock::HOUR_MS;
use crate::delivery::Cause;
use crate::delivery::answer::{LookupVerdict, judge_lookup};
use crate::planted::{Fault, is_planted};

/// An hour less than the shortest time for which the API may remember an id.
const REMEMBERED_MS: i64 = 23 * HOUR_MS;
/// A server that gave no answer may still be at work: what it knows is asked after this.
const SETTLES_MS: MonoMs = 120_000;
/// What is about to be set aside is looked up so often before it is set aside as uncertain.
const ATTEMPTS: u32 = 3;
const RETRY_MS: MonoMs = 60_000;

/// Why and when a record is looked up.
#[derive(Clone, Debug)]
pub(super) struct Lookup {
    /// Why it is set aside if the API does not know it; without a cause it is sent.
    cause: Option<Cause>,
    unanswered: u32,
    pub(super) not_before: MonoMs,
}

impl Delivery {
    /// Takes out what may be billed and forgotten.
    pub(super) fn part_what_needs_a_lookup(&mut self, records: &mut Vec<Sent>, now: Now) {
        if is_planted(Fault::ResendAfterADay) {
            return;
        }
        let is_old = |sent: &Sent| {
            sent.item.unanswered.is_some_and(|unanswered| {
                // Either clock may have stood still or been set.
                let by_wall = now.wall.saturating_sub(unanswered.first.wall);
                let by_mono = now.mono.saturating_sub(unanswered.first.mono) as i64;
                by_wall.max(by_mono) >= REMEMBERED_MS
            })
        };
        for sent in records.extract_if(.., |sent| is_old(sent)) {
            let lookup = Lookup { cause: None, unanswered: 0, not_before: now.mono };
            self.lookups.push_back((lookup, sent));
        }
    }

    /// Has a record looked up that is to be set aside.
    pub(super) fn look_up_before_setting_aside(&mut self, sent: Sent, cause: Cause, now: Now) {
        let last = sent.item.unanswered.map_or(now.mono, |unanswered| unanswered.last);
        let lookup = Lookup { cause: Some(cause), unanswered: 0, not_before: last + SETTLES_MS };
        self.lookups.push_back((lookup, sent));
    }

    pub(super) fn take_lookup(&mut self, now: Now) -> Option<(Purpose, Vec<Sent>)> {
        let due = |(lookup, _): &(Lookup, Sent)| lookup.not_before <= now.mono;
        let at = self.lookups.iter().position(due)?;
        let (lookup, sent) = self.lookups.remove(at)?;
        Some((Purpose::Lookup(lookup), vec![sent]))
    }

    /// Takes out what was to be set aside.
    pub(super) fn give_up_setting_aside(&mut self) -> Vec<Sent> {
        let (to_blame, others): (VecDeque<_>, _) = std::mem::take(&mut self.lookups)
            .into_iter()
            .partition(|(lookup, _)| lookup.cause.is_some());
        self.lookups = others;
        to_blame.into_iter().map(|(_, sent)| sent).collect()
    }

    pub(super) fn looked_up(
        &mut self,
        mut lookup: Lookup,
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
                lookup.not_before = now.mono + RETRY_MS;
                match verdict {
                    Verdict::Retry { after_ms, limited, words, .. } => {
                        lookup.unanswered += 1;
                        self.back_off(after_ms as u64, limited, &words, now, actions);
                    }
                    Verdict::Hold { why, words } => self.hold(why, &words, now, actions),
                    _ => lookup.unanswered += 1,
                }
                match lookup.cause {
                    Some(cause) if lookup.unanswered >= ATTEMPTS => {
                        self.set_aside_now(sent, cause, actions);
                    }
                    _ => self.lookups.push_back((lookup, sent)),
                }
            }
        }
    }
}
