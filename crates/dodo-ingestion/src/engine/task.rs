//! The task of one namespace: elects itself sender where it can, and lets the waiting know.

use std::sync::Arc;

use super::sender::Sender;
use crate::alarm::AlarmKind;
use crate::clock::{Clock as _, MINUTE_MS, MonoMs, Now, SystemClock, instant_at};
use crate::shared::Shared;
use crate::spool::{Namespace, outcomes_of, read_cursor, remove_spool};

/// How often the deadlines of those who wait are looked at.
const WAITERS_POLL_MS: MonoMs = 20;
/// How often a process that does not send tries to.
const ELECTION_MS: MonoMs = 500;
/// How often the namespace's size is measured.
const MEASURE_MS: MonoMs = 1_000;
/// A segment in which everything has been settled for so long is left for a new one.
const IDLE_SEGMENT_MS: i64 = 10 * MINUTE_MS;

/// Serves a namespace until no client wants it.
pub(super) async fn run(shared: Arc<Shared>, namespace: Namespace) {
    let mut task = Task { shared, namespace, sender: None, next_election: 0, next_measure: 0 };
    loop {
        task.shared.wake.awake();
        task.shared.ids.redraw();
        let now = SystemClock.now();
        task.serve(now);
        if task.shared.end_if_unused() {
            task.end();
            return;
        }
        let until = task.sleep_until(now);
        task.shared.wake.asleep_until(until);
        task.sleep(until).await;
    }
}

struct Task {
    shared: Arc<Shared>,
    namespace: Namespace,
    sender: Option<Sender>,
    next_election: MonoMs,
    next_measure: MonoMs,
}

impl Task {
    fn serve(&mut self, now: Now) {
        if self.sender.is_none() && now.mono >= self.next_election {
            self.next_election = now.mono + ELECTION_MS;
            self.stand_for_election(now);
        }
        if self.sender.as_ref().is_some_and(Sender::is_deposed) {
            self.sender = None;
        }
        if let Some(sender) = &mut self.sender {
            sender.tick(now);
        } else {
            self.watch_own_spool();
        }
        if now.mono >= self.next_measure {
            self.next_measure = now.mono + MEASURE_MS;
            self.measure(now);
        }
        if self.shared.settlement.has_waiters() {
            self.shared.settlement.tick();
        }
    }

    fn stand_for_election(&mut self, now: Now) {
        let lock = match self.namespace.try_lock_sender() {
            Ok(Some(lock)) => lock,
            Ok(None) => return,
            Err(error) => {
                return self.alarm_storage("the sender's lock cannot be tried", &error, now);
            }
        };
        match Sender::new(self.shared.clone(), self.namespace.clone(), lock, now) {
            Ok(sender) => self.sender = Some(sender),
            Err(error) => self.shared.alarms.raise(AlarmKind::Storage, error.message(), now.mono),
        }
    }

    /// Learns from what the sender of another process wrote.
    fn watch_own_spool(&self) {
        let (disk, dir) = (&**self.namespace.disk(), self.shared.writer.dir());
        // Before the sender's first write there is nothing to read.
        let Ok(cursor) = read_cursor(disk, dir) else { return };
        if cursor.settled > self.shared.settlement.settled() {
            for rejection in outcomes_of(disk, dir).unwrap_or_default() {
                self.shared.settlement.reject(rejection);
            }
            self.shared.settlement.advance(cursor.settled);
        }
    }

    fn measure(&self, now: Now) {
        match self.namespace.usage() {
            Ok(bytes) => self.shared.writer.set_namespace_bytes(bytes),
            Err(error) => self.alarm_storage("the spool cannot be measured", &error, now),
        }
        let settled = self.shared.settlement.settled();
        if let Err(error) = self.shared.writer.roll_if_idle(settled, now.wall, IDLE_SEGMENT_MS) {
            self.alarm_storage("a new segment cannot be begun", &error, now);
        }
    }

    fn alarm_storage(&self, what: &str, error: &std::io::Error, now: Now) {
        let message = format!("{what}: {}: {error}", self.namespace.dir().display());
        self.shared.alarms.raise(AlarmKind::Storage, &message, now.mono);
    }

    fn sleep_until(&self, now: Now) -> MonoMs {
        let poll = match &self.sender {
            _ if self.shared.settlement.has_waiters() => WAITERS_POLL_MS,
            Some(sender) => sender.poll_interval(),
            None => ELECTION_MS,
        };
        let at = now.mono + poll;
        self.sender.as_ref().and_then(Sender::wake_at).map_or(at, |wake_at| wake_at.min(at))
    }

    /// Sleeps until then, a wake-up or an answer.
    async fn sleep(&mut self, until: MonoMs) {
        let answer = async {
            match &mut self.sender {
                Some(sender) => sender.answer().await,
                None => std::future::pending().await,
            }
        };
        let answered = tokio::select! {
            answer = answer => Some(answer),
            () = self.shared.wake.woken() => None,
            () = tokio::time::sleep_until(instant_at(until).into()) => None,
        };
        if let (Some((request, answer)), Some(sender)) = (answered, &mut self.sender) {
            sender.answered(request, answer, SystemClock.now());
            // The next request goes out, through the connection's own task, before more is read.
            for _ in 0..3 {
                tokio::select! {
                    biased;
                    (request, answer) = sender.answer() => {
                        sender.answered(request, answer, SystemClock.now());
                    }
                    () = tokio::task::yield_now() => {}
                }
            }
        }
    }

    /// Lets go of the spool; removes it if there is nothing in it.
    fn end(self) {
        let writer = &self.shared.writer;
        let empty = writer.close() <= self.shared.settlement.settled();
        // Without the sender's lock, the sender removes it once this process lets go of it.
        if empty
            && self.sender.is_some()
            && let Err(error) = remove_spool(&**self.namespace.disk(), writer.dir())
        {
            self.alarm_storage("an empty spool cannot be removed", &error, SystemClock.now());
        }
    }
}
