//! The run of one seed: what happens next, and to whom.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use fastrand::Rng;
use serde_json::Value;

use super::Outcome;
use super::disk::{DiskFaults, Machine};
use super::meanwhile;
use super::network::{self, Call, Outbox, Slot, Weather};
use super::oracle::{Oracle, numbers};
use super::process::Process;
use super::scenario::{KEYS, Plot, Scenario};
use super::server::Server;
use crate::clock::Now;
use crate::config::ApiKey;
use crate::delivery::Answer;
use crate::planted::{Fault, plant};

/// When every run begins: 2026-01-31 12:00 UTC, so that a long one crosses a month.
const START_MS: i64 = 1_769_860_800_000;
/// What a sender may hold of records: what is read ahead and under way, and what waits aside.
const HELD_BYTES: usize = (10 + 12) << 20;
const LOOK_MS: i64 = 5_000;
const CALM_LOOK_MS: i64 = 30_000;
/// No run has so many events, unless something spins.
const MOST_EVENTS: u64 = 2_000_000;
pub(super) const HOUR_MS: i64 = 60 * 60_000;

/// What happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    Arrive(u64),
    Answer(u64),
    Start,
    Track(u32),
    Weather,
    Calamity,
    DiskIsGood,
    KeyIsTaken,
    RefusalEnds,
    Look,
}

struct Flight {
    process: u32,
    key: String,
    call: Call,
    slot: Slot,
    instead: Option<Answer>,
    answer: Option<Answer>,
}

pub(crate) struct World {
    pub(super) scenario: Scenario,
    pub(super) rng: Rng,
    /// The true time.
    pub(super) now: i64,
    pub(super) wall_offset: i64,
    /// For how long the machine slept.
    pub(super) mono_lag: i64,
    pub(super) machine: Machine,
    pub(super) server: Server,
    pub(super) oracle: Oracle,
    pub(super) weather: Weather,
    pub(super) processes: BTreeMap<u32, Process>,
    /// Which key the server takes.
    pub(super) key: usize,
    pub(super) disk_is_bad: bool,
    outbox: Outbox,
    flights: BTreeMap<u64, Flight>,
    pub(super) events: BTreeMap<(i64, u64), Event>,
    next_number: u32,
    next_event: u64,
    pub(super) troubled: bool,
    /// How seldom processes are served, at the least.
    pub(super) slowness_ms: i64,
    /// The last that became the sender.
    sender: Option<u32>,
    /// Decides when the disk is looked at besides; looking changes nothing of what happens.
    looking: Rng,
    /// The disk is to be looked at after this.
    pub(super) look: bool,
    set_aside_before_refusal: BTreeSet<String>,
    pub(super) senders_lost_under_refusal: usize,
    outcome: Outcome,
    trace: Option<Trace>,
}

/// What happened, kept by whoever asked for it, also where a run panics.
pub(super) type Trace = Rc<RefCell<Vec<String>>>;

impl World {
    pub(crate) fn new(seed: u64, fault: Option<Fault>, trace: Option<Trace>) -> Self {
        let mut rng = Rng::with_seed(seed);
        fastrand::seed(rng.u64(..));
        plant(fault);
        meanwhile::forget();
        let scenario = Scenario::draw(&mut rng);
        let mut server = Server::new(rng.u64(..));
        server.options = scenario.server.clone();
        let machine = Machine::new(rng.u64(..));
        // The directory for state was there before.
        _ = machine.disk(0).create_dir_all("/state".as_ref());
        _ = machine.disk(0).sync_dir("/".as_ref());
        let journalled = rng.bool();
        machine.faults(|faults| faults.journalled = journalled);
        Self {
            oracle: Oracle::new(scenario.bounds),
            scenario,
            rng,
            now: START_MS,
            wall_offset: 0,
            mono_lag: 0,
            machine,
            server,
            weather: Weather::default(),
            processes: BTreeMap::new(),
            key: 0,
            disk_is_bad: false,
            outbox: Outbox::default(),
            flights: BTreeMap::new(),
            events: BTreeMap::new(),
            next_number: 1,
            next_event: 0,
            troubled: true,
            slowness_ms: 0,
            sender: None,
            looking: Rng::with_seed(seed),
            look: false,
            set_aside_before_refusal: BTreeSet::new(),
            senders_lost_under_refusal: 0,
            outcome: Outcome::default(),
            trace,
        }
    }

    pub(crate) fn run(mut self) -> Outcome {
        let scenario = format!("{:?}", self.scenario);
        self.note("", || scenario);
        for _ in 0..self.scenario.processes {
            self.plan(0, Event::Start);
        }
        self.plan(0, Event::Weather);
        self.plan(500, Event::Calamity);
        self.plan(LOOK_MS, Event::Look);
        let end = self.now + self.scenario.trouble_ms;
        while self.now < end && self.is_fine() {
            self.step();
        }
        if self.scenario.plot == Plot::LongOutage {
            self.long_outage();
        }
        self.calm_down();
        let end = self.now + self.scenario.calm_ms;
        let mut look = self.now;
        while self.now < end && self.is_fine() {
            self.step();
            if self.now >= look {
                look = self.now + CALM_LOOK_MS;
                self.oracle.look(&self.machine);
                if self.oracle.unfinished().next().is_none() {
                    break;
                }
            }
        }
        if self.is_fine() {
            self.oracle.look(&self.machine);
            self.oracle.finish(self.scenario.plot != Plot::Systemic);
            self.look_at_receipts();
        }
        self.finish()
    }

    pub(super) fn is_fine(&self) -> bool {
        self.oracle.violations.is_empty() && self.server.violations.is_empty()
    }

    fn finish(mut self) -> Outcome {
        plant(None);
        let mut outcome = self.outcome;
        outcome.violations = self.oracle.violations.clone();
        outcome.violations.append(&mut self.server.violations);
        for (fault, times) in self.machine.fired().into_iter().chain(self.server.fired) {
            *outcome.faults.entry(fault).or_default() += times;
        }
        outcome.simulated_ms = self.now - START_MS;
        outcome.accepted = self.oracle.count_accepted();
        outcome.billed = self.oracle.count_billed();
        outcome.requests = self.oracle.requests;
        let late = self.oracle.count_late();
        if late > 0 {
            outcome.faults.insert("set aside for its age", late);
        }
        outcome
    }

    /// Notes what happens; a fault by its name.
    pub(super) fn note(&mut self, fault: &'static str, what: impl FnOnce() -> String) {
        if !fault.is_empty() {
            *self.outcome.faults.entry(fault).or_default() += 1;
        }
        if let Some(trace) = &self.trace {
            let at = self.now - START_MS;
            trace.borrow_mut().push(format!(
                "{:>10}.{:03} {fault} {}",
                at / 1_000,
                at % 1_000,
                what()
            ));
        }
    }

    pub(super) fn clocks(&self) -> Now {
        let mono = self.now - START_MS - self.mono_lag + 1_000;
        Now { wall: self.now + self.wall_offset, mono: mono as u64 }
    }

    pub(super) fn plan(&mut self, after_ms: i64, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now + after_ms, self.next_event), event);
    }

    pub(super) fn plan_start(&mut self) {
        let after = self.rng.i64(10..3_000);
        self.plan(after, Event::Start);
    }

    pub(super) fn new_number(&mut self) -> u32 {
        self.next_number += 1;
        self.next_number
    }

    /// The next thing that happens, and a look at the disk where it may matter.
    pub(super) fn step(&mut self) {
        self.happens_next();
        let look = std::mem::take(&mut self.look);
        let full = self.machine.named_bytes() > self.scenario.bounds.disk_bytes;
        if look || full || self.looking.u8(..50) == 0 {
            self.oracle.look(&self.machine);
        }
    }

    fn happens_next(&mut self) {
        self.outcome.events += 1;
        if self.outcome.events > MOST_EVENTS {
            self.oracle.violations.push("it goes on and on".into());
        }
        let served = self
            .processes
            .iter()
            .map(|(number, process)| (process.next.max(process.stopped_until), *number))
            .min();
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        match (served, event) {
            (Some((at, number)), event) if event.is_none_or(|event| at <= event) => {
                self.now = self.now.max(at);
                self.serve(number);
            }
            (_, Some(at)) => {
                self.now = self.now.max(at);
                if let Some((_, event)) = self.events.pop_first() {
                    self.happen(&event);
                }
            }
            _ => self.now += LOOK_MS,
        }
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Arrive(flight) => self.arrive(flight),
            Event::Answer(flight) => self.answer(flight),
            Event::Start => {
                let number = self.new_number();
                self.start_as(number);
            }
            Event::Track(number) => self.track_some(number),
            Event::Weather if self.troubled => self.change_weather(),
            Event::Calamity if self.troubled => self.calamity(),
            Event::Look if self.troubled => {
                self.oracle.look(&self.machine);
                self.plan(LOOK_MS, Event::Look);
            }
            Event::DiskIsGood => self.mend_the_disk(),
            Event::KeyIsTaken => {
                self.server.options.keys = [KEYS[self.key].to_owned()].into();
            }
            Event::RefusalEnds => self.end_refusal(),
            Event::Weather | Event::Calamity | Event::Look => {}
        }
    }

    pub(super) fn start_as(&mut self, number: u32) {
        let (config, now) = (&self.scenario.config, self.clocks());
        match Process::start(number, &self.machine, config, &self.outbox, now) {
            Ok(mut process) => {
                self.note("", || format!("process {number} starts"));
                process.shared.set_key(ApiKey::for_test(KEYS[self.key]));
                process.next = self.now;
                self.processes.insert(number, process);
                self.plan(5, Event::Track(number));
            }
            Err(error) => {
                self.note("", || format!("process {number} cannot start: {error}"));
                self.machine.kill(number);
                self.plan_start();
            }
        }
    }

    /// Sees to what a process has done.
    pub(super) fn served(&mut self, number: u32) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        let held = process.held();
        let spools = held.spools;
        if held.bytes > HELD_BYTES {
            let text = format!("process {number} holds {} bytes of {spools} spools", held.bytes);
            self.oracle.violations.push(text);
        }
        if held.spools > 0 && self.sender.replace(number) != Some(number) {
            self.note("hand-over", || format!("process {number} is the sender"));
            self.look = true;
        }
        self.send();
        self.hear_verdicts(number);
        self.bury(number);
    }

    /// Sees whether a process has died in what it just did.
    pub(super) fn bury(&mut self, number: u32) {
        if self.machine.is_alive(number) {
            return;
        }
        if let Some(process) = self.processes.remove(&number) {
            self.senders_lost_under_refusal += usize::from(process.sends());
            self.note("death", || format!("process {number} died"));
            self.look = true;
            self.plan_start();
        }
    }

    fn send(&mut self) {
        let sent: Vec<_> = self.outbox.borrow_mut().drain(..).collect();
        for sent in sent {
            if !self.machine.is_alive(sent.process) {
                continue;
            }
            if self.disk_is_bad {
                self.oracle.budget_is_unknown(self.now);
            }
            self.oracle.started(self.now);
            let looks_up = matches!(sent.call, Call::Lookup(_));
            let fate = self.weather.decide(&mut self.rng);
            let flight = self.next_event;
            self.note(fate.name, || {
                let what = match &sent.call {
                    Call::Ingest(body) => format!("{:?}", numbers(body)),
                    Call::Lookup(id) => format!("look-up of {id}"),
                };
                format!("process {} sends {what} as {flight}", sent.process)
            });
            if looks_up && matches!(fate.instead, Some(Answer::Failed(_))) {
                self.note("look-up unanswered", String::new);
            }
            let (slot, instead, answer) = (sent.slot, fate.instead, None);
            let (process, key, call) = (sent.process, sent.key, sent.call);
            self.flights.insert(flight, Flight { process, key, call, slot, instead, answer });
            for after in fate.arrives {
                self.plan(after, Event::Arrive(flight));
            }
            self.plan(fate.answered, Event::Answer(flight));
        }
    }

    pub(super) fn arrive(&mut self, number: u64) {
        let Some(flight) = self.flights.get_mut(&number) else { return };
        let answer = match &flight.call {
            Call::Ingest(body) => {
                let answer = self.server.ingest(self.now, &flight.key, body);
                let body: Value = serde_json::from_slice(body).unwrap_or_default();
                let ids: Vec<String> = body["events"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|event| Some(event["event_id"].as_str()?.to_owned()))
                    .collect();
                if answer.status == 200 {
                    self.oracle.taken(&self.server, &ids);
                }
                answer
            }
            Call::Lookup(id) => self.server.lookup(self.now, &flight.key, id),
        };
        flight.answer.get_or_insert(network::read(&answer));
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        self.note("", || format!("{number} arrives: {} {text}", answer.status));
    }

    fn answer(&mut self, number: u64) {
        let Some(flight) = self.flights.get_mut(&number) else { return };
        let answer = flight.instead.take().or_else(|| flight.answer.clone());
        *flight.slot.borrow_mut() = answer;
        let process = flight.process;
        if let Some(process) = self.processes.get_mut(&process) {
            process.next = self.now;
        }
    }

    /// What was answered last is not heard, and then more than a day passes. The clock may be set back meanwhile.
    fn long_outage(&mut self) {
        let hours = self.rng.i64(24..30);
        let kind = self.rng.u8(..3);
        self.note("long outage", || format!("{hours} hours, of kind {kind}"));
        if self.troubled && kind == 0 {
            for number in self.processes.keys().copied().collect::<Vec<_>>() {
                self.machine.kill(number);
                self.bury(number);
            }
            self.pass(hours * HOUR_MS);
            self.wall_offset -= if hours == 29 { 48 } else { 2 * (hours - 24) } * HOUR_MS;
        } else if kind == 1 {
            self.sleep(hours * HOUR_MS);
        } else {
            self.troubled = false;
            self.weather = Weather::outage();
            self.slowness_ms = 10 * 60_000;
            let end = self.now + hours * HOUR_MS;
            while self.now < end && self.is_fine() {
                self.step();
            }
            self.slowness_ms = 0;
        }
    }

    /// The trouble is over.
    fn calm_down(&mut self) {
        self.note("", || "calm".into());
        self.troubled = false;
        self.weather = Weather::default();
        if self.server.options.refuses_all {
            // It outlasts all else: senders that live have the time to see most customers refused.
            let ms = self.rng.i64(1..HOUR_MS);
            self.note("long refusal", || format!("for {ms} ms more"));
            self.plan(ms, Event::RefusalEnds);
        }
        self.server.options.keys = [KEYS[self.key].to_owned()].into();
        self.mend_the_disk();
        for process in self.processes.values_mut() {
            process.stopped_until = process.stopped_until.min(self.now);
            process.next = self.now;
            process.shared.set_key(ApiKey::for_test(KEYS[self.key]));
        }
        if self.processes.is_empty() {
            self.plan(0, Event::Start);
        }
    }

    fn end_refusal(&mut self) {
        let before = std::mem::take(&mut self.server.options.refuses_all);
        self.refusal_changed(before);
    }

    fn mend_the_disk(&mut self) {
        if std::mem::take(&mut self.disk_is_bad) {
            self.oracle.budget_is_unknown(self.now);
        }
        self.machine.faults(|faults| {
            *faults = DiskFaults { journalled: faults.journalled, ..DiskFaults::default() };
        });
    }

    /// Under a refusal of everything a sender sets calls of at most eight customers aside.
    pub(super) fn refusal_changed(&mut self, before: bool) {
        self.oracle.look(&self.machine);
        let customers = self.oracle.customers_set_aside();
        if before {
            let count = customers.difference(&self.set_aside_before_refusal).count();
            // Each new sender has to find out by itself.
            if count > 8 * (1 + self.senders_lost_under_refusal) {
                let text = format!("calls of {count} customers set aside by a refusal of all");
                self.oracle.violations.push(text);
            }
        } else {
            self.set_aside_before_refusal = customers;
            self.senders_lost_under_refusal = 0;
        }
    }
}
