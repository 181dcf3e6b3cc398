//! What befalls the machine while there is trouble.

use super::network::Weather;
use super::process::NAMESPACE;
use super::scenario::{KEYS, Plot};
use super::world::{Event, World};
use crate::config::{ApiKey, Durability};
use crate::planted::{Fault, is_planted};

const HOUR_MS: i64 = 60 * 60_000;

impl World {
    /// One thing goes wrong, and the next is planned.
    pub(super) fn calamity(&mut self) {
        match self.rng.u8(..22) {
            0..=4 => self.kill_soon(),
            5 | 6 => self.fork(),
            7 | 8 => self.stop_for_a_while(),
            9 => self.exit(),
            10 | 11 => self.disk_trouble(),
            12 if self.scenario.power_loss => self.lose_power(),
            13 | 14 if self.scenario.rot => self.rot(),
            15 if self.scenario.clock_jumps => self.set_the_clock(),
            16 => self.suspend(),
            17 => self.rotate_the_key(),
            18 => self.replace_the_lock(),
            19 => self.forget_the_key(),
            _ => {}
        }
        let next = self.rng.i64(300..12_000);
        self.plan(next, Event::Calamity);
    }

    /// The weather changes.
    pub(super) fn change_weather(&mut self) {
        self.weather = Weather::draw(&mut self.rng);
        if self.scenario.plot == Plot::Systemic {
            // What is refused now and taken a moment later, because the network repeats it, is
            // nobody's to know.
            self.weather.twice = 0.0;
            // What is taken, and not heard of, and then refused, is what look-ups are for.
            if self.rng.bool() {
                self.weather.answer_lost = 0.7;
            }
            let before = self.server.options.refuses_all;
            self.server.options.refuses_all = self.rng.u8(..3) > 0;
            self.refusal_changed(before);
        }
        if self.scenario.plot == Plot::LongOutage && self.rng.bool() {
            self.weather.answer_lost = 1.0;
        }
        let next = self.rng.i64(2_000..40_000);
        self.plan(next, Event::Weather);
    }

    fn any_process(&mut self) -> Option<u32> {
        let numbers: Vec<u32> = self.processes.keys().copied().collect();
        self.rng.choice(numbers)
    }

    fn kill_soon(&mut self) {
        let Some(process) = self.any_process() else { return };
        let operations = self.rng.u64(..80);
        self.note("kill", || format!("process {process} is to die after {operations} operations"));
        self.machine.kill_after(process, operations);
    }

    fn fork(&mut self) {
        let Some(parent) = self.any_process() else { return };
        let child = self.new_number();
        self.machine.fork(parent, child);
        if !is_planted(Fault::ForkKeepsDescriptors) {
            self.machine.close_inherited(child);
        }
        let works = self.rng.bool();
        self.note("fork", || format!("process {parent} forks {child}, which works: {works}"));
        if works {
            self.start_as(child);
        }
    }

    fn stop_for_a_while(&mut self) {
        let Some(process) = self.any_process() else { return };
        let ms = self.rng.i64(500..60_000);
        self.note("stop", || format!("process {process} is stopped for {ms} ms"));
        if let Some(process) = self.processes.get_mut(&process) {
            process.stopped_until = self.now + ms;
        }
    }

    fn exit(&mut self) {
        let Some(number) = self.any_process() else { return };
        self.note("exit", || format!("process {number} closes and exits"));
        let now = self.clocks();
        if let Some(mut process) = self.processes.remove(&number) {
            self.senders_lost_under_refusal += usize::from(process.sends());
            process.shared.leave(true);
            if process.shared.end_if_unused()
                && let Some(task) = process.task.take()
            {
                task.end(now);
            }
        }
        self.machine.kill(number);
        self.look = true;
        self.plan_start();
    }

    fn disk_trouble(&mut self) {
        if !self.scenario.disk_faults {
            return;
        }
        let kind = self.rng.u8(..6);
        let probability = self.rng.f64() * 0.2;
        let room = self.machine.total_bytes() + self.rng.u64(..50_000);
        self.note("disk trouble", || format!("of kind {kind}"));
        self.machine.faults(|faults| match kind {
            0 => faults.no_space = true,
            1 => faults.capacity = Some(room),
            2 => faults.io_errors = probability,
            3 => faults.short_writes = probability,
            4 => faults.sync_fails = probability,
            _ => faults.read_only = true,
        });
        self.disk_is_bad = true;
        let ms = self.rng.i64(500..30_000);
        self.plan(ms, Event::DiskIsGood);
    }

    fn lose_power(&mut self) {
        self.note("power loss", || "the power is lost".into());
        self.machine.power_loss();
        self.senders_lost_under_refusal += 1;
        self.processes.clear();
        self.oracle.look_again();
        self.oracle.budget_is_unknown(self.now);
        if self.scenario.config.namespace.durability != Durability::Disk {
            self.oracle.excuse_all();
        }
        self.look = true;
        for _ in 0..self.scenario.processes {
            self.plan_start();
        }
    }

    fn rot(&mut self) {
        let filter = |path: &std::path::Path| {
            path.starts_with(NAMESPACE)
                && path.file_name().is_some_and(|name| {
                    let name = name.to_string_lossy();
                    name.starts_with("segment-") || name == "cursor" || name == "starts"
                })
        };
        let before: Vec<_> = self.machine.paths().into_iter().filter(|path| filter(path)).collect();
        let before: Vec<_> =
            before.into_iter().map(|path| (self.machine.read(&path), path)).collect();
        let Some((path, range)) = self.machine.rot(filter, &mut self.rng) else { return };
        self.note("rot", || format!("{} {range:?}", path.display()));
        let found = before.into_iter().find(|(_, known)| *known == path);
        let Some((Some(contents), _)) = found else { return };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        match name.as_deref() {
            Some("cursor") => self.oracle.look_again(),
            Some("starts") => self.oracle.budget_is_unknown(self.now),
            _ => self.oracle.excuse_damage(&path, &contents, &range),
        }
    }

    fn set_the_clock(&mut self) {
        let by = self.rng.i64(-2 * HOUR_MS..2 * HOUR_MS);
        self.note("clock set", || format!("by {by} ms"));
        self.wall_offset += by;
        self.oracle.budget_is_unknown(self.now);
    }

    /// The machine sleeps: the wall clock goes on, the monotonic one does not.
    fn suspend(&mut self) {
        let ms = self.rng.i64(1_000..3 * HOUR_MS);
        self.note("suspend", || format!("for {ms} ms"));
        self.sleep(ms);
    }

    /// Everybody sleeps.
    pub(super) fn sleep(&mut self, ms: i64) {
        self.pass(ms);
        self.mono_lag += ms;
    }

    /// Time passes on this machine, and what is on its way to the server arrives.
    pub(super) fn pass(&mut self, ms: i64) {
        let end = self.now + ms;
        let arrives = |(at, event): (&(i64, u64), &Event)| match event {
            Event::Arrive(flight) if at.0 <= end => Some((*at, *flight)),
            _ => None,
        };
        let arrivals: Vec<_> = self.events.iter().filter_map(arrives).collect();
        for (at, flight) in arrivals {
            self.events.remove(&at);
            self.now = self.now.max(at.0);
            self.arrive(flight);
        }
        self.now = end;
    }

    fn rotate_the_key(&mut self) {
        let old = self.key;
        self.key = 1 - old;
        let key = KEYS[self.key];
        self.note("key rotation", || format!("{key} is the key now"));
        self.server.options.keys = [key.to_owned()].into();
        for process in self.processes.values() {
            if self.rng.bool() {
                process.shared.set_key(ApiKey::for_test(key));
            }
        }
    }

    /// Somebody tidies up: the lock file is removed under the sender.
    fn replace_the_lock(&mut self) {
        let path = std::path::Path::new(NAMESPACE).join("sender.lock");
        self.note("lock removed", || "the sender's lock file is removed".into());
        // Two may send until the next look at the lock, each within the budget.
        self.oracle.budget_is_unknown(self.now);
        self.senders_lost_under_refusal += 1;
        _ = self.machine.disk(0).remove_file(&path);
    }

    /// No key is right for a while.
    fn forget_the_key(&mut self) {
        self.note("no key", || "no key is taken".into());
        self.server.options.keys.clear();
        let ms = self.rng.i64(1_000..60_000);
        self.plan(ms, Event::KeyIsTaken);
    }
}
