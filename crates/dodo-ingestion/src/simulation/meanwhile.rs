//! What another process does between two operations of the disk: the one that is served stands still
//! there, for instance between its look at a lock and what the lock guards.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::process::Process;
use super::world::World;

/// Something to be done once, after so many operations.
type Waiting = (u64, Box<dyn FnOnce()>);

thread_local! {
    static WAITING: RefCell<Option<Waiting>> = const { RefCell::new(None) };
}

/// An operation of the disk is about to begin.
pub(super) fn operation() {
    let due = WAITING.with_borrow_mut(|waiting| {
        let left = &mut waiting.as_mut()?.0;
        *left = left.saturating_sub(1);
        waiting.take_if(|waiting| waiting.0 == 0)
    });
    if let Some((_, act)) = due {
        act();
    }
}

fn after(operations: u64, act: impl FnOnce() + 'static) {
    WAITING.set(Some((operations, Box::new(act))));
}

/// A run that panicked may have left something to do.
pub(super) fn forget() {
    WAITING.take();
}

/// Does what is left to do. False if it was done before.
fn at_last() -> bool {
    let left = WAITING.take();
    left.map(|(_, act)| act()).is_some()
}

/// A process that was lent, and when it wants to be served again.
type Lent = Rc<Cell<Option<(Process, i64)>>>;

impl World {
    /// Serves a process; now and then another has its whole turn in the middle of it.
    pub(super) fn serve(&mut self, number: u32) {
        let other = if self.rng.u8(..8) == 0 { self.another_than(number) } else { None };
        let Some((other, mut process)) =
            other.and_then(|other| Some((other, self.processes.remove(&other)?)))
        else {
            self.serve_alone(number);
            return self.served(number);
        };
        let (now, slowness, lent) = (self.clocks(), self.slowness_ms, Lent::default());
        let back = lent.clone();
        after(self.rng.u64(1..60), move || {
            let sleep = process.serve(now).max(slowness);
            back.set(Some((process, sleep)));
        });
        self.serve_alone(number);
        if !at_last() {
            self.note("meanwhile", || format!("process {other} had its turn within {number}'s"));
        }
        if let Some((mut process, sleep)) = lent.take() {
            process.next = self.now + sleep;
            self.processes.insert(other, process);
        }
        self.served(number);
        self.served(other);
    }

    fn serve_alone(&mut self, number: u32) {
        let now = self.clocks();
        let Some(process) = self.processes.get_mut(&number) else { return };
        let sleep = process.serve(now).max(self.slowness_ms);
        process.next = self.now + sleep + self.rng.i64(0..3);
    }

    /// Another process that runs.
    fn another_than(&mut self, number: u32) -> Option<u32> {
        let runs = |process: &Process| process.stopped_until <= self.now;
        let others =
            self.processes.iter().filter(|(other, process)| **other != number && runs(process));
        let others: Vec<u32> = others.map(|(other, _)| *other).collect();
        self.rng.choice(others)
    }
}
