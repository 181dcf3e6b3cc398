//! What became of this process's calls, for those who wait for it.
//!
//! Written by the engine, which knows it from its own requests or, where another process sends,
//! from the cursor and the outcomes that the sender writes. Read by receipts, flush and stats.

mod waiters;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use self::waiters::{Waiter, Waiters};
use crate::delivery::Trouble;
use crate::error::{Error, ErrorKind};
use crate::process::Unforked;
use crate::spool::{Rejection, Seq};

/// So many rejections are remembered for receipts. Older ones are among the dead letters only.
const MAX_REJECTIONS: usize = 10_000;
/// How often a thread that is blocked looks again by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
pub(crate) struct Settlement {
    settled: AtomicU64,
    dead_lettered: AtomicU64,
    lost: AtomicU64,
    left: AtomicU64,
    waiting: AtomicUsize,
    waiters: Waiters,
    ended: AtomicBool,
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
    /// How many of them were appended.
    flushes_appended: u64,
}

impl State {
    /// Returns how many records it covers behind one that is known, which begins with the same.
    fn remember(&mut self, mut rejection: Rejection, settled: Seq) -> u64 {
        let end = rejection.end();
        while let Some(known) = self.rejections.get(&rejection.seq)
            && rejection.seq < end
        {
            rejection.seq = known.end();
        }
        rejection.records = end.saturating_sub(rejection.seq);
        let records = rejection.records;
        if records == 0 {
            return 0;
        }
        self.longest = self.longest.max(records);
        self.rejections.insert(rejection.seq, rejection);
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
        records
    }

    fn forget_flushes_below(&mut self, settled: Seq) {
        while self.flushes.front().is_some_and(|flush| *flush < settled) {
            self.flushes.pop_front();
        }
    }

    /// How many of the records up to `next_seq` are calls of which nothing is known yet, where all below
    /// `settled` are settled. Behind one that waits, others are set aside.
    fn waiting_calls(&mut self, settled: Seq, next_seq: Seq) -> u64 {
        self.forget_flushes_below(settled);
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
    pub(crate) billed: u64,
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
        let waiting = state.waiting_calls(self.settled(), next_seq) + self.left();
        let (dead_lettered, lost) = (self.dead_lettered(), self.lost());
        let calls = next_seq.saturating_sub(state.flushes_appended);
        let billed = calls.saturating_sub(waiting + dead_lettered + lost);
        Ends { billed, dead_lettered, lost }
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
        let mut state = self.state();
        state.forget_flushes_below(self.settled());
        state.flushes.push_back(seq);
        state.flushes_appended += 1;
    }

    /// The record before this one, where it is a flush: nothing came since that another would make due.
    pub(crate) fn flush_before(&self, next_seq: Seq) -> Option<Seq> {
        let last = self.state().flushes.back().copied();
        last.filter(|flush| flush + 1 == next_seq)
    }

    /// Notes why records were not billed; before [`Settlement::advance`] passes it.
    pub(crate) fn reject(&self, rejection: Rejection) {
        let counter = if rejection.is_lost() { &self.lost } else { &self.dead_lettered };
        let mut state = self.state();
        // Under the lock, so that it is counted once at every moment.
        counter.fetch_add(state.remember(rejection, self.settled()), Ordering::Relaxed);
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
        self.give_up(end, &self.left, Rejection::left);
    }

    /// Gives the records below `end` that are not settled up for lost.
    pub(crate) fn lose(&self, end: Seq) {
        self.give_up(end, &self.lost, Rejection::lost);
    }

    fn give_up(&self, end: Seq, counter: &AtomicU64, why: impl Fn(&Range<Seq>) -> Rejection) {
        let settled = self.settled();
        if settled < end {
            let mut state = self.state();
            counter.fetch_add(state.waiting_calls(settled, end), Ordering::Relaxed);
            state.remember(why(&(settled..end)), settled);
            drop(state);
            self.advance(end);
        }
    }

    /// Everything below `settled` is settled.
    pub(crate) fn advance(&self, settled: Seq) {
        if self.settled.fetch_max(settled, Ordering::AcqRel) < settled {
            self.waiters.wake_below(settled);
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

    /// Wakes those whose time is over.
    pub(crate) fn tick(&self) {
        self.waiters.wake_due(Instant::now());
    }

    /// Nothing more will be learnt: the last client was closed.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.waiters.wake_all();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Counts the caller as waiting until the guard is dropped.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
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
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Waiting<'_> {
    fn over(&self, seq: Seq, deadline: Instant) -> Over<'_> {
        Over { settlement: self.0, waiter: self.0.waiters.join(seq, deadline) }
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
        Unforked::new(self.over(seq, deadline)).await?;
        self.outcome(seq)
    }
}

/// Blocks this thread for a wait. It looks at the deadline by itself.
pub(crate) fn block_on<T>(wait: impl Future<Output = T>) -> T {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut wait = pin!(wait);
    loop {
        if let Poll::Ready(over) = wait.as_mut().poll(&mut Context::from_waker(&waker)) {
            return over;
        }
        thread::park_timeout(LOOK_AGAIN);
    }
}

/// Ready when a record is settled, its deadline is over or nothing more will be learnt.
struct Over<'a> {
    settlement: &'a Settlement,
    waiter: Waiter,
}

impl Future for Over<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { settlement, waiter } = &*self;
        settlement.waiters.listen(*waiter, context.waker());
        let over = settlement.settled() > waiter.seq
            || settlement.has_ended()
            || Instant::now() >= waiter.deadline;
        if over { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.settlement.waiters.leave(self.waiter);
    }
}

#[cfg(test)]
mod tests;
