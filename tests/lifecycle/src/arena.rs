//! The loop: starts a meter and its writers, does to them what the plan says, and judges the bill.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastrand::Rng;

use crate::meter::Meter;
use crate::notes::Notes;
use crate::plan::{Act, Budget, Plan};
use crate::process::{Signal, wait_until, wait_while_it_moves};
use crate::report::{Kills, Report};
use crate::writers::{Pace, Settings, Writer};

/// Threads of a writer.
const THREADS: usize = 2;
/// How long a thread may rest after a call, in microseconds.
const RESTS_US: [u64; 4] = [2_000, 5_000, 10_000, 20_000];
/// How many calls a thread in haste may make before it rests.
const BURSTS: [u64; 4] = [30, 100, 300, 1_000];
/// How many calls a thread makes in haste. More would only make a backlog that the meter works off for
/// minutes.
const HASTY: u64 = 1_200;
/// How often it is looked whether another has begun to send.
const POLL: Duration = Duration::from_millis(5);
/// How long the meter may be away.
const AWAY_MS: std::ops::RangeInclusive<u64> = 0..=500;
/// How long a process may be stopped: requests under way time out, or do not.
const STOPPED_MS: std::ops::RangeInclusive<u64> = 50..=1_200;

/// Carries out a plan. The files of a run that fails, or whose bill is wrong, are kept.
pub fn run(plan: &Plan, seed: u64) -> Result<Report> {
    let dir = tempfile::Builder::new().prefix("dodo-ingestion-lifecycle-").tempdir()?;
    let described = || format!("{}, seed {seed}: files in {}", plan.name, dir.path().display());
    let outcome = Arena::open(plan, seed, dir.path()).and_then(Arena::play).with_context(described);
    if outcome.as_ref().map_or(true, |report| !report.differences.is_empty()) {
        let path = dir.keep();
        return outcome.map(|mut report| {
            report.differences.push(format!("files in {}", path.display()));
            report
        });
    }
    outcome
}

struct Arena<'p> {
    plan: &'p Plan,
    seed: u64,
    rng: Rng,
    began: Instant,
    meter: Meter,
    settings: Settings,
    writers: Vec<Writer>,
    /// Writers started so far.
    started: u32,
    /// The one that was started last.
    youngest: usize,
    kills: Kills,
    /// When a sender was killed whom nobody has followed yet.
    orphaned: Option<Instant>,
    hand_overs: Vec<Duration>,
    stops: u32,
}

impl<'p> Arena<'p> {
    fn open(plan: &'p Plan, seed: u64, dir: &std::path::Path) -> Result<Self> {
        let limited = plan.budget == Budget::Published;
        let meter = Meter::start(dir.join("meter.db"), limited)?;
        let settings = Settings::new(meter.url(), dir, plan.budget)?;
        let mut arena = Self {
            plan,
            seed,
            rng: Rng::with_seed(seed),
            began: Instant::now(),
            meter,
            settings,
            writers: Vec::new(),
            started: 0,
            youngest: 0,
            kills: Kills::default(),
            orphaned: None,
            hand_overs: Vec::new(),
            stops: 0,
        };
        for _ in 0..plan.writers {
            let writer = arena.start_writer()?;
            arena.writers.push(writer);
        }
        Ok(arena)
    }

    fn play(mut self) -> Result<Report> {
        let mut acts: Vec<Act> = Vec::new();
        for &(act, times) in &self.plan.acts {
            acts.extend(std::iter::repeat_n(act, times as usize));
        }
        self.rng.shuffle(&mut acts);
        for act in acts {
            let pause = Duration::from_millis(self.rng.u64(self.plan.pause_ms.clone()));
            self.pause(pause);
            self.perform(act).with_context(|| format!("{act:?}"))?;
            self.check_writers()?;
        }
        self.end()
    }

    /// Lets time pass, and sees when another takes over from a dead sender.
    fn pause(&mut self, pause: Duration) {
        let end = Instant::now() + pause;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            let poll = if self.orphaned.is_some() { POLL } else { left };
            thread::sleep(poll.min(left));
            self.see_who_sends();
        }
    }

    fn see_who_sends(&mut self) -> Option<usize> {
        let sender = self.writers.iter().position(Writer::is_sending)?;
        let since = self.orphaned.take();
        self.hand_overs.extend(since.map(|since| since.elapsed()));
        Some(sender)
    }

    fn check_writers(&mut self) -> Result<()> {
        self.writers.iter_mut().try_for_each(Writer::check)
    }

    fn start_writer(&mut self) -> Result<Writer> {
        self.started += 1;
        let burst = BURSTS[self.rng.usize(..BURSTS.len())];
        let rest_us = RESTS_US[self.rng.usize(..RESTS_US.len())];
        let hasty = if self.plan.full_speed { HASTY } else { 0 };
        let pace = Pace { burst, hasty, rest_us };
        self.settings.start(format!("w{}", self.started), THREADS, pace)
    }

    fn perform(&mut self, act: Act) -> Result<()> {
        match act {
            Act::KillWriter => {
                let mut victim = self.rng.usize(..self.writers.len());
                // Else most would die before their haste or after it.
                if self.plan.full_speed && self.rng.bool() {
                    victim = self.youngest;
                    wait_until("it makes calls", || self.writers[victim].makes_calls())?;
                }
                self.kills.writers += 1;
                self.replace(victim)
            }
            Act::KillSender => {
                let sender = self.sender()?;
                self.kills.senders += 1;
                self.replace(sender)
            }
            Act::KillMeter => {
                let away = Duration::from_millis(self.rng.u64(AWAY_MS));
                self.kills.meters += 1;
                self.meter.kill_and_restart(away)
            }
            Act::StopSender => self.stop_sender(),
            Act::StopMeter => {
                self.stops += 1;
                self.meter.signal(Signal::Stop)?;
                thread::sleep(Duration::from_millis(self.rng.u64(STOPPED_MS)));
                self.meter.signal(Signal::Continue)
            }
        }
    }

    fn replace(&mut self, victim: usize) -> Result<()> {
        let sends = self.writers[victim].is_sending();
        self.writers[victim].kill()?;
        if sends {
            self.orphaned = Some(Instant::now());
        }
        self.kills.in_a_call += u32::from(self.writers[victim].died_in_a_call()?);
        self.writers[victim] = self.start_writer()?;
        self.youngest = victim;
        Ok(())
    }

    /// The writer that makes the requests of all.
    fn sender(&mut self) -> Result<usize> {
        let mut sender = None;
        wait_until("a writer sends", || {
            self.check_writers()?;
            sender = self.see_who_sends();
            Ok(sender.is_some())
        })?;
        sender.context("a sender")
    }

    fn stop_sender(&mut self) -> Result<()> {
        let sender = self.sender()?;
        self.stops += 1;
        self.writers[sender].signal(Signal::Stop)?;
        let others = || self.writers.iter().enumerate().filter(|(index, _)| *index != sender);
        let mut before = Vec::new();
        for (index, writer) in others() {
            before.push((index, writer.accepted_bytes()?));
        }
        thread::sleep(Duration::from_millis(self.rng.u64(STOPPED_MS)));
        wait_until("the others go on accepting while the sender is stopped", || {
            for &(index, bytes) in &before {
                if self.writers[index].accepted_bytes()? <= bytes {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        self.writers[sender].signal(Signal::Continue)
    }

    /// Lets the writers close and a last one see to what the dead have left; then compares.
    fn end(mut self) -> Result<Report> {
        for writer in &mut self.writers {
            writer.ask_to_end();
        }
        for writer in &mut self.writers {
            writer.join()?;
        }
        let of_the_dead = self.settings.spools()?;
        let no_calls = Pace { burst: 1, hasty: 0, rest_us: 0 };
        let mut last = self.settings.start("last".to_owned(), 0, no_calls)?;
        wait_while_it_moves("the spools of the dead are drained", || {
            last.check()?;
            let drained = self.settings.spools()?.is_disjoint(&of_the_dead);
            Ok((drained, self.meter.totals()?.calls))
        })?;
        last.ask_to_end();
        last.join()?;

        let mut differences = self.settings.casualties(self.kills.in_a_call)?;
        for spool in self.settings.spools()? {
            differences.push(format!("spool {} is left, and nobody owns it", spool.display()));
        }
        let totals = self.meter.totals()?;
        let billed = self.meter.close()?;
        self.hand_overs.sort_unstable();
        let notes = Notes::read(self.settings.notes())?;
        let mut report = Report {
            plan: self.plan.name,
            seed: self.seed,
            elapsed: self.began.elapsed(),
            kills: self.kills,
            stops: self.stops,
            attempted: notes.attempted.len(),
            accepted: notes.accepted.len(),
            billed: billed.len(),
            requests: totals.requests,
            resent: totals.duplicates,
            hand_overs: self.hand_overs,
            differences,
        };
        report.compare(&notes, billed, totals);
        Ok(report)
    }
}
