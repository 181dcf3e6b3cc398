//! The task of one namespace: elects itself sender where it can, looks after this process's spool, and
//! lets the waiting know.
//!
//! [`Task`] is a state machine with a clock handed in; [`run`] is the loop around it.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::sender::Sender;
use super::{opening, trouble};
use crate::alarm::AlarmKind;
use crate::clock::{self, MINUTE_MS, MonoMs, Now, WallMs, instant_at};
use crate::config::ApiKey;
use crate::delivery::{Answer, Token};
use crate::shared::Shared;
use crate::spool::{
    LookedAfter, Namespace, Outcomes, Owned, Rejection, Seq, SpoolName, read_cursor, remove_spool,
};
use crate::transport::{self, Connect};

/// How often the deadlines of those who wait are looked at.
const WAITERS_POLL_MS: MonoMs = 20;
/// How often a process that does not send tries to.
const ELECTION_MS: MonoMs = 500;
/// A sender that gave up its lock for another process stands again after this.
const YIELD_MS: MonoMs = 5_000;
/// How often this process's spool is looked after.
const LOOK_AFTER_MS: MonoMs = 1_000;
/// A sender without a sign of life for so long is told of.
const STALLED_MS: MonoMs = 10_000;
/// How often the sender looks for calls beside its namespace that no process serves.
const LOOK_BESIDE_MS: MonoMs = 10 * MINUTE_MS as MonoMs;
/// A segment to which nothing was appended for so long is left for a new one.
const IDLE_SEGMENT_MS: WallMs = 10 * MINUTE_MS;

/// Serves a namespace until no client wants it.
pub(super) async fn run(shared: Arc<Shared>, namespace: Namespace) {
    let mut task = Task::new(shared, namespace, Rc::new(transport::connect));
    loop {
        task.shared.wake.awake();
        task.shared.ids.redraw();
        let now = clock::now();
        task.serve(now);
        if task.shared.end_if_unused() {
            task.end(now);
            return;
        }
        let until = task.shared.wake.asleep_until(task.sleep_until(now));
        // The connection has its turn also while calls come faster than this loop goes round.
        tokio::task::yield_now().await;
        sleep(&mut task, until).await;
    }
}

/// Sleeps until then, a wake-up or an answer.
async fn sleep(task: &mut Task, until: MonoMs) {
    let shared = task.shared.clone();
    let answered = tokio::select! {
        answer = poll_fn(|context| task.poll_answer(context)) => Some(answer),
        () = shared.wake.woken() => None,
        () = tokio::time::sleep_until(instant_at(until).into()) => None,
    };
    let Some((request, answer)) = answered else { return };
    task.answered(request, answer, clock::now());
    // The next request goes out, through the connection's own task, before more is read.
    for _ in 0..3 {
        tokio::select! {
            biased;
            (request, answer) = poll_fn(|context| task.poll_answer(context)) => {
                task.answered(request, answer, clock::now());
            }
            () = tokio::task::yield_now() => {}
        }
    }
}

pub(crate) struct Task {
    shared: Arc<Shared>,
    namespace: Namespace,
    connect: Rc<Connect>,
    sender: Option<Sender>,
    /// Of this process's spool, as another process's sender writes them.
    outcomes: Outcomes,
    /// This process gave up the lock, with this key, and no other took it.
    yielded: Option<ApiKey>,
    next_election: MonoMs,
    next_look: MonoMs,
    /// When to look beside the namespace; when it was opened, that was done.
    next_look_beside: Option<MonoMs>,
    /// The other process's sign of life, and when it changed.
    last_beat: (u64, MonoMs),
}

impl Task {
    pub(crate) fn new(shared: Arc<Shared>, namespace: Namespace, connect: Rc<Connect>) -> Self {
        Self {
            shared,
            namespace,
            connect,
            sender: None,
            outcomes: Outcomes::default(),
            yielded: None,
            next_election: 0,
            next_look: 0,
            next_look_beside: None,
            last_beat: (0, 0),
        }
    }

    /// What is to be done now; [`Self::sleep_until`] says when it is to be called again.
    pub(crate) fn serve(&mut self, now: Now) {
        if self.sender.as_ref().is_some_and(Sender::is_deposed) {
            self.sender = None;
        }
        if let Some(sender) = self.sender.take_if(|sender| sender.yields(now)) {
            self.yielded = Some(sender.key().clone());
            self.next_election = now.mono + YIELD_MS;
        }
        // Another key is worth trying at once.
        if self.yielded.as_ref().is_some_and(|key| *key != self.shared.key()) {
            self.yielded = None;
            self.next_election = now.mono;
        }
        if self.sender.is_none() && now.mono >= self.next_election {
            self.next_election = now.mono + ELECTION_MS;
            self.stand_for_election(now);
        }
        if let Some(sender) = &mut self.sender {
            sender.tick(now);
        } else {
            self.watch_own_spool();
        }
        if now.mono >= self.next_look {
            self.next_look = now.mono + LOOK_AFTER_MS;
            self.look_after_own_spool(now);
            if self.sender.is_none() {
                self.watch_sender(now);
            }
        }
        self.look_beside(now);
        self.shared.writer.prepare();
        if self.shared.settlement.has_waiters() {
            self.shared.settlement.tick();
        }
    }

    fn stand_for_election(&mut self, now: Now) {
        let lock = match self.namespace.try_lock_sender() {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                self.yielded = None;
                return;
            }
            // The namespace was removed: how many calls went with it is told when the spool is looked after.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.next_look = now.mono;
                return;
            }
            Err(error) => {
                return self.alarm_storage("the sender's lock cannot be tried", &error, now);
            }
        };
        let (shared, namespace) = (self.shared.clone(), self.namespace.clone());
        match Sender::new(
            shared,
            namespace,
            lock,
            self.connect.clone(),
            self.yielded.is_some(),
            now,
        ) {
            Ok(sender) => self.sender = Some(sender),
            Err(error) => self.shared.alarms.raise(AlarmKind::Storage, error.message(), now.mono),
        }
    }

    /// Learns from what the sender of another process wrote.
    fn watch_own_spool(&mut self) {
        let (disk, dir) = (&**self.namespace.disk(), self.shared.writer.dir());
        // A cursor that cannot be read now will be later.
        let Ok(cursor) = read_cursor(disk, &dir) else { return };
        if cursor.settled > self.shared.settlement.settled() {
            let read = |each: &mut dyn FnMut(Rejection)| self.outcomes.read_on(disk, &dir, each);
            // Without the outcomes, what was set aside would be taken for billed: nothing is learnt.
            _ = self.shared.settlement.learn(cursor.settled, read);
        }
    }

    /// A sender that is stopped is not deposed: it would send on when it goes on.
    fn watch_sender(&mut self, now: Now) {
        // Without a beat there is no sender yet, and an election to come.
        let Ok(beat) = self.namespace.last_beat() else { return };
        self.shared.settlement.set_trouble(trouble::from_code(beat.trouble), None);
        if self.last_beat.1 == 0 || beat.count != self.last_beat.0 {
            self.last_beat = (beat.count, now.mono.max(1));
        } else if now.mono - self.last_beat.1 >= STALLED_MS {
            let message = "another process holds this account's sender lock and shows no sign of \
                           life; calls are kept. Is it stopped, or is its disk?";
            self.alarm(AlarmKind::SenderStalled, message, now);
        }
    }

    fn look_after_own_spool(&mut self, now: Now) {
        match self.shared.writer.look_after(now.wall, IDLE_SEGMENT_MS) {
            Ok(LookedAfter::InPlace) => {}
            Ok(LookedAfter::SegmentReplaced) => {
                let message = "the file that calls were written to was damaged or removed; another \
                               was begun";
                self.alarm(AlarmKind::Storage, message, now);
            }
            Ok(LookedAfter::Gone) => self.replace_removed_spool(now),
            Ok(LookedAfter::Closed) => self.leave_closed_spool(now),
            Err(error) => self.alarm_storage("the spool cannot be looked after", &error, now),
        }
    }

    /// Those who served a namespace beside this one may have gone since this one was opened.
    fn look_beside(&mut self, now: Now) {
        let due = *self.next_look_beside.get_or_insert(now.mono + LOOK_BESIDE_MS);
        if now.mono >= due {
            self.next_look_beside = None;
            if self.sender.is_some() {
                opening::tell_of_abandoned(&self.shared.alarms, &self.namespace, now.mono);
            }
        }
    }

    fn replace_removed_spool(&mut self, now: Now) {
        let what = "the spool was removed, and another cannot be made";
        let Some(end) = self.move_to_a_new_spool(what, now) else { return };
        let calls = self.shared.settlement.waiting_calls(end);
        let message = format!(
            "the spool was removed while it was in use, and with it {calls} calls that were not \
             billed; another was made"
        );
        self.alarm(AlarmKind::Storage, &message, now);
        self.shared.settlement.lose(end);
    }

    /// Its calls are delivered by whoever is the sender, as those of the dead are.
    fn leave_closed_spool(&mut self, now: Now) {
        let what = "the host closed the files of the spool, and another cannot be made";
        let Some(end) = self.move_to_a_new_spool(what, now) else { return };
        // It takes the old spool for that of a living owner, and its files may be closed as well.
        self.sender = None;
        self.next_election = now.mono;
        let calls = self.shared.settlement.waiting_calls(end);
        let message = format!(
            "the host closed the files of the spool, as a program does that becomes a daemon; \
             another was made. {calls} calls stay in the old one, and the next sender delivers them"
        );
        self.alarm(AlarmKind::Storage, &message, now);
        self.shared.settlement.leave(end);
    }

    /// Returns how many records were appended to the old one.
    fn move_to_a_new_spool(&mut self, or: &str, now: Now) -> Option<Seq> {
        match self.new_spool(now) {
            Ok(spool) => {
                self.outcomes = Outcomes::default();
                Some(self.shared.writer.move_to(spool))
            }
            Err(error) => {
                self.alarm_storage(or, &error, now);
                None
            }
        }
    }

    /// Makes a spool where it may be that others made the directories meanwhile.
    fn new_spool(&self, now: Now) -> io::Result<Owned> {
        let (shared, dir) = (&self.shared, self.namespace.dir());
        let allowed = &shared.config.allow_filesystem;
        let notices = self.namespace.disk().prepare(&Namespace::dirs(dir), allowed)?;
        opening::tell_of_place(&shared.alarms, &notices, dir, now.mono);
        self.namespace.create_spool(SpoolName(shared.ids.next(now.wall)))
    }

    fn alarm(&self, kind: AlarmKind, message: &str, now: Now) {
        let message = format!("{message} (in {})", self.namespace.dir().display());
        self.shared.alarms.raise(kind, &message, now.mono);
    }

    fn alarm_storage(&self, what: &str, error: &io::Error, now: Now) {
        let message = format!("{what}: {}: {error}", self.namespace.dir().display());
        self.shared.alarms.raise(AlarmKind::Storage, &message, now.mono);
    }

    pub(crate) fn sleep_until(&self, now: Now) -> MonoMs {
        let poll = match &self.sender {
            _ if self.shared.settlement.has_waiters() => WAITERS_POLL_MS,
            Some(sender) => sender.poll_interval(),
            None => ELECTION_MS,
        };
        let at = now.mono + poll;
        self.sender.as_ref().and_then(Sender::wake_at).map_or(at, |wake_at| wake_at.min(at))
    }

    /// The answer to the request under way; pending for ever when there is none.
    pub(crate) fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<(Token, Answer)> {
        self.sender.as_mut().map_or(Poll::Pending, |sender| sender.poll_answer(context))
    }

    pub(crate) fn answered(&mut self, request: Token, answer: Answer, now: Now) {
        if let Some(sender) = &mut self.sender {
            sender.answered(request, answer, now);
        }
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> Option<super::sender::Held> {
        self.sender.as_ref().map(Sender::held)
    }

    /// Lets go of the spool; removes it if there is nothing in it.
    pub(crate) fn end(self, now: Now) {
        let writer = &self.shared.writer;
        let dir = writer.dir();
        let empty = writer.close() <= self.shared.settlement.settled()
            && dir.starts_with(self.namespace.dir());
        // Without the sender's lock, the sender removes it once this process lets go of it.
        if empty
            && self.sender.as_ref().is_some_and(|sender| !sender.is_deposed())
            && let Err(error) = remove_spool(&**self.namespace.disk(), &dir)
        {
            self.alarm_storage("an empty spool cannot be removed", &error, now);
        }
        writer.let_go();
    }
}
