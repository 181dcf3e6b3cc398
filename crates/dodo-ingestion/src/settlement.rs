//! What became of this process's calls, for those who wait for it.
//!
//! Written by the engine, which knows it from its own requests or, where another process sends,
//! from the cursor and the outcomes that the sender writes. Read by receipts, flush and stats.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use event_listener::{Event, Listener as _};

use crate::delivery::Trouble;
use crate::error::{Error, ErrorKind};
use crate::process::Unforked;
use crate::spool::{Rejection, Seq};

/// So many rejections are remembered for receipts. Older ones are among the dead letters only.
const MAX_REJECTIONS: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct Settlement {
    settled: AtomicU64,
    dead_lettered: AtomicU64,
    lost: AtomicU64,
    left: AtomicU64,
    waiters: AtomicUsize,
    ended: AtomicBool,
    changed: Event,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rejections: BTreeMap<Seq, Rejection>,
    /// So many records the longest of them covers.
    longest: u64,
    /// Whatever is below it and not among the rejections may have been one that was forgotten.
    forgotten_below: Seq,
    /// How many records were forgotten before the cursor passed them.
    forgotten_ahead: u64,
    /// What keeps calls from being billed, as the sender says; in its words, where it is this process.
    trouble: Option<(Trouble, Option<String>)>,
    /// Flush records that are not settled: they are no calls.
    flushes: VecDeque<Seq>,
}

impl State {
    /// False when it was known.
    fn remember(&mut self, rejection: Rejection, settled: Seq) -> bool {
        self.longest = self.longest.max(rejection.records);
        let new = self.rejections.insert(rejection.seq, rejection).is_none();
        if self.rejections.len() > MAX_REJECTIONS
            && let Some((_, oldest)) = self.rejections.pop_first()
        {
            if self.forgotten_below <= settled {
                self.forgotten_ahead = 0;
            }
            if oldest.seq >= settled {
                self.forgotten_ahead += oldest.records;
            }
            self.forgotten_below = self.forgotten_below.max(oldest.end());
        }
        new
    }

    /// How many of the records up to `next_seq` are calls of which nothing is known yet, where all below
    /// `settled` are settled. Behind one that waits, others are set aside.
    fn waiting_calls(&mut self, settled: Seq, next_seq: Seq) -> u64 {
        while self.flushes.front().is_some_and(|flush| *flush < settled) {
            self.flushes.pop_front();
        }
        let ahead: u64 =
            self.rejections.range(settled..).map(|(_, set_aside)| set_aside.records).sum();
        let forgotten = if self.forgotten_below > settled { self.forgotten_ahead } else { 0 };
        next_seq
            .saturating_sub(settled)
            .saturating_sub(self.flushes.len() as u64)
            .saturating_sub(ahead + forgotten)
    }
}

/// How many of the calls up to some record came to which end, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// They came to none yet, as far as is known; or they are left to the next sender.
    pub(crate) waiting: u64,
    pub(crate) dead_lettered: u64,
    pub(crate) lost: u64,
}

impl Settlement {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic happens under it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every record below it is settled.
    pub(crate) fn settled(&self) -> Seq {
        self.settled.load(Ordering::Acquire)
    }

    pub(crate) fn dead_lettered(&self) -> u64 {
        self.dead_lettered.load(Ordering::Relaxed)
    }

    /// How many the disk lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// How many wait in a spool that is this process's no more.
    pub(crate) fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// How many of the records up to `next_seq` are calls that wait.
    pub(crate) fn waiting_calls(&self, next_seq: Seq) -> u64 {
        let mut state = self.state();
        state.waiting_calls(self.settled(), next_seq)
    }

    /// What became of the calls up to `next_seq`.
    pub(crate) fn ends(&self, next_seq: Seq) -> Ends {
        let mut state = self.state();
        Ends {
            waiting: state.waiting_calls(self.settled(), next_seq) + self.left(),
            dead_lettered: self.dead_lettered(),
            lost: self.lost(),
        }
    }

    /// How many calls came to another end than to be billed or set aside: lost, and left.
    pub(crate) fn missing(&self) -> (u64, u64) {
        (self.lost(), self.left())
    }

    /// What a flush reports when its record is settled, and so many were missing when it began.
    pub(crate) fn flushed(&self, (lost, left): (u64, u64)) -> Result<(), Error> {
        let lost = self.lost().saturating_sub(lost);
        if self.left() > left {
            return Err(Rejection::left(&(0..0)).to_error());
        }
        if lost > 0 {
            let message = format!(
                "{lost} calls were accepted, and the disk lost them; what could be read of them lies \
                 in quarantine"
            );
            return Err(Error::new(ErrorKind::Storage, message).and_may_be_billed());
        }
        Ok(())
    }

    pub(crate) fn flush_appended(&self, seq: Seq) {
        self.state().flushes.push_back(seq);
    }

    /// Notes why records were not billed; before [`Settlement::advance`] passes it.
    pub(crate) fn reject(&self, rejection: Rejection) {
        let (records, lost) = (rejection.records, rejection.is_lost());
        let mut state = self.state();
        if state.remember(rejection, self.settled()) {
            let counter = if lost { &self.lost } else { &self.dead_lettered };
            counter.fetch_add(records, Ordering::Relaxed);
        }
    }

    /// Takes over what the sender of another process wrote: up to where everything is settled, and
    /// what of this spool it set aside. Some of that may be known.
    pub(crate) fn learn(
        &self,
        settled: Seq,
        read: impl FnOnce(&mut dyn FnMut(Rejection)) -> io::Result<()>,
    ) -> io::Result<()> {
        let known = self.settled().max(self.state().forgotten_below);
        read(&mut |rejection| {
            if rejection.end() > known {
                self.reject(rejection);
            }
        })?;
        self.advance(settled);
        Ok(())
    }

    /// Leaves the records below `end` that are not settled to the next sender: what becomes of them
    /// is not learnt here.
    pub(crate) fn leave(&self, end: Seq) {
        let settled = self.settled();
        if settled < end {
            let mut state = self.state();
            let left = state.waiting_calls(settled, end);
            self.left.fetch_add(left, Ordering::Relaxed);
            state.remember(Rejection::left(&(settled..end)), settled);
            drop(state);
            self.advance(end);
        }
    }

    /// Everything below `settled` is settled.
    pub(crate) fn advance(&self, settled: Seq) {
        if self.settled.fetch_max(settled, Ordering::AcqRel) < settled {
            self.changed.notify(usize::MAX);
        }
    }

    pub(crate) fn set_trouble(&self, trouble: Option<Trouble>, words: Option<&str>) {
        self.state().trouble = trouble.map(|trouble| (trouble, words.map(str::to_owned)));
    }

    /// The error of a wait whose time was over, for what keeps calls from being billed.
    pub(crate) fn overdue(&self, message: &str) -> Error {
        let Some((trouble, words)) = self.state().trouble.clone() else {
            return Error::new(ErrorKind::Timeout, message);
        };
        let (kind, why) = match trouble {
            Trouble::KeyRefused { .. } => {
                (ErrorKind::Authentication, "the billing API refuses the API key")
            }
            Trouble::WrongAddress => (
                ErrorKind::Network,
                "base_url is not the billing API's, or something stands between",
            ),
            Trouble::Unreachable => (ErrorKind::Network, "requests fail in a row"),
            Trouble::Systemic => {
                (ErrorKind::Timeout, "the billing API refuses calls of many customers")
            }
        };
        let status = match trouble {
            Trouble::KeyRefused { status } => Some(status),
            _ => None,
        };
        let why = words.as_deref().unwrap_or(why);
        Error::new(kind, format!("{message}: {why}")).with_status(status)
    }

    /// Lets everyone who waits look at the clock.
    pub(crate) fn tick(&self) {
        self.changed.notify(usize::MAX);
    }

    /// Nothing more will be learnt: the last client was closed.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.changed.notify(usize::MAX);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn has_waiters(&self) -> bool {
        self.waiters.load(Ordering::Relaxed) > 0
    }

    /// Counts the caller as waiting until the guard is dropped.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.waiters.fetch_add(1, Ordering::Relaxed);
        Waiting(self)
    }

    fn outcome(&self, seq: Seq) -> Result<(), Error> {
        let state = self.state();
        let near = seq.saturating_sub(state.longest)..=seq;
        let mut before = state.rejections.range(near).rev().map(|(_, rejection)| rejection);
        match before.find(|rejection| rejection.covers(seq)) {
            Some(rejection) => Err(rejection.to_error()),
            None if seq < state.forgotten_below => Err(forgotten()),
            None => Ok(()),
        }
    }
}

fn forgotten() -> Error {
    let message = "what became of the call is no longer known here, because too many were set aside \
                   since; look for its event id among the dead letters";
    Error::new(ErrorKind::Storage, message).and_may_be_billed()
}

/// Someone who waits. While there are any, the engine ticks often enough for their deadlines.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a Settlement);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Waiting<'_> {
    fn is_over(&self, seq: Seq, deadline: Instant) -> bool {
        self.0.settled() > seq || self.0.has_ended() || Instant::now() >= deadline
    }

    /// The record's outcome; `None` when it has none yet.
    fn outcome(&self, seq: Seq) -> Option<Result<(), Error>> {
        (self.0.settled() > seq).then(|| self.0.outcome(seq))
    }

    /// The record's outcome; `None` when the deadline, the end or a fork came first. Needs no
    /// particular executor.
    pub(crate) async fn until_settled(
        &self,
        seq: Seq,
        deadline: Instant,
    ) -> Option<Result<(), Error>> {
        loop {
            let listener = Unforked::new(self.0.changed.listen());
            if self.is_over(seq, deadline) {
                return self.outcome(seq);
            }
            listener.await?;
        }
    }

    /// The same, blocking this thread.
    pub(crate) fn block_until_settled(
        &self,
        seq: Seq,
        deadline: Instant,
    ) -> Option<Result<(), Error>> {
        loop {
            let listener = self.0.changed.listen();
            if self.is_over(seq, deadline) {
                return self.outcome(seq);
            }
            listener.wait_deadline(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn refused(seq: Seq) -> Rejection {
        let (kind, message) = ("rejected".into(), String::new());
        Rejection { seq, records: 1, kind, status: None, message, uncertain: false }
    }

    #[test]
    fn what_was_set_aside_among_what_was_left_keeps_its_own_outcome() {
        let settlement = Settlement::default();
        settlement.advance(3);
        settlement.reject(refused(5));
        settlement.flush_appended(8);
        settlement.leave(10);
        let kind = |seq| settlement.outcome(seq).map_err(|error| error.kind()).err();
        let kinds: Vec<_> = (2..11).map(kind).collect();
        let (left, set_aside) = (Some(ErrorKind::Closed), Some(ErrorKind::Rejected));
        assert_eq!(kinds, [None, left, left, set_aside, left, left, left, left, None]);
        assert_eq!((settlement.left(), settlement.waiting_calls(10)), (5, 0));
        assert_eq!((settlement.lost(), settlement.dead_lettered()), (0, 1));
    }

    #[test]
    fn what_is_remembered_no_more_is_never_taken_for_billed() {
        let settlement = Settlement::default();
        let many = MAX_REJECTIONS as Seq + 2;
        for seq in 1..=many {
            settlement.reject(refused(seq));
        }
        settlement.advance(many + 10);
        let kind = |seq| settlement.outcome(seq).map_err(|error| error.kind()).err();
        let unknown = Some(ErrorKind::Storage);
        assert_eq!([kind(0), kind(1), kind(2)], [unknown; 3]);
        assert_eq!(
            [kind(3), kind(many), kind(many + 1)],
            [Some(ErrorKind::Rejected), Some(ErrorKind::Rejected), None]
        );
        assert!(settlement.outcome(1).unwrap_err().may_be_billed());
    }

    #[test]
    fn what_is_set_aside_behind_a_call_that_waits_does_not_wait() {
        let settlement = Settlement::default();
        let many = MAX_REJECTIONS as Seq + 100;
        let ends = || {
            let Ends { waiting, dead_lettered, lost } = settlement.ends(many + 10);
            (waiting, dead_lettered, lost)
        };
        settlement.advance(2);
        settlement.flush_appended(3);
        settlement.reject(refused(1));
        assert_eq!(ends(), (many + 7, 1, 0));
        settlement.reject(Rejection::lost(&(4..6)));
        settlement.reject(refused(6));
        settlement.reject(refused(6));
        assert_eq!(ends(), (many + 4, 2, 2));
        for seq in 7..many {
            settlement.reject(refused(seq));
        }
        assert_eq!(ends(), (11, many - 5, 2), "some are remembered no more");
        settlement.advance(many);
        assert_eq!(ends(), (10, many - 5, 2));
        settlement.reject(refused(many + 3));
        assert_eq!(ends(), (9, many - 4, 2));
    }

    #[test]
    fn a_flush_tells_of_what_was_lost_meanwhile_and_of_nothing_else() {
        let settlement = Settlement::default();
        let flushed = |before| settlement.flushed(before).map_err(|error| error.kind());
        let before = settlement.missing();
        settlement.reject(Rejection::lost(&(2..4)));
        settlement.advance(6);
        assert_eq!(flushed(before), Err(ErrorKind::Storage));
        let before = settlement.missing();
        for seq in 6..MAX_REJECTIONS as Seq + 8 {
            settlement.reject(refused(seq));
        }
        let own = settlement.outcome(5).map_err(|error| error.kind());
        assert_eq!(own, Err(ErrorKind::Storage), "it is remembered no more");
        assert_eq!(flushed(before), Ok(()));
        settlement.leave(MAX_REJECTIONS as Seq + 20);
        assert_eq!(flushed(before), Err(ErrorKind::Closed));
    }

    #[test]
    fn what_another_process_set_aside_is_counted_once_however_often_it_is_read() {
        let settlement = Settlement::default();
        let many = MAX_REJECTIONS as Seq + 5;
        let learn = |settled, outcomes: Seq| {
            let read = |each: &mut dyn FnMut(Rejection)| {
                (0..outcomes).map(refused).for_each(each);
                Ok(())
            };
            settlement.learn(settled, read).unwrap();
        };
        learn(many, many);
        learn(many + 1, many + 3);
        learn(many + 3, many + 3);
        assert_eq!((settlement.settled(), settlement.dead_lettered()), (many + 3, many + 3));
    }

    #[test]
    fn a_wait_that_took_too_long_says_what_keeps_calls_from_being_billed() {
        let settlement = Settlement::default();
        let overdue = |trouble| {
            settlement.set_trouble(trouble, None);
            let error = settlement.overdue("after 5s 2 calls stay spooled");
            assert!(error.message().starts_with("after 5s 2 calls stay spooled"));
            (error.kind(), error.status())
        };
        let refused = Some(Trouble::KeyRefused { status: 403 });
        assert_eq!(overdue(refused), (ErrorKind::Authentication, Some(403)));
        assert_eq!(overdue(Some(Trouble::WrongAddress)), (ErrorKind::Network, None));
        assert_eq!(overdue(Some(Trouble::Unreachable)), (ErrorKind::Network, None));
        assert_eq!(overdue(Some(Trouble::Systemic)), (ErrorKind::Timeout, None));
        assert_eq!(overdue(None), (ErrorKind::Timeout, None));
        settlement.set_trouble(refused, Some("no such key"));
        assert_eq!(settlement.overdue("late").message(), "late: no such key");
    }

    /// Nothing ticks here: a wake-up that is lost is a deadline that passes.
    #[test]
    fn whoever_waits_hears_of_their_record_however_the_threads_run() {
        const RECORDS: Seq = 200;
        for round in 0..20 {
            let settlement = Settlement::default();
            let deadline = Instant::now() + Duration::from_secs(120);
            std::thread::scope(|scope| {
                let waiters: Vec<_> = (0..4)
                    .map(|thread| {
                        let settlement = &settlement;
                        scope.spawn(move || {
                            for seq in (thread..RECORDS).step_by(4) {
                                let outcome = settlement.wait().block_until_settled(seq, deadline);
                                let rejected = outcome.expect("heard of it").is_err();
                                assert_eq!(rejected, seq % 7 == 0, "record {seq}");
                            }
                        })
                    })
                    .collect();
                let mut random = fastrand::Rng::with_seed(round);
                for seq in 0..RECORDS {
                    if seq % 7 == 0 {
                        settlement.reject(refused(seq));
                    }
                    if random.bool() {
                        std::thread::yield_now();
                    }
                    settlement.advance(seq + 1);
                }
                for waiter in waiters {
                    waiter.join().unwrap();
                }
            });
            assert!(!settlement.has_waiters());
        }
    }
}
