//! Runs of many seeds, and the tests that are made of them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Outcome, World};
use crate::planted::{Fault, plant};

/// Every fault that the simulator plants, and a seed that found it when this was written.
const FAULTS: &[(Fault, u64)] = &[
    (Fault::AcknowledgeWithoutAnAnswer, 0),
    (Fault::AnyBodyAcknowledges, 1),
    (Fault::AnotherIdOnRetry, 1),
    (Fault::SkipTheChecksum, 36),
    (Fault::CursorGoesBackward, 0),
    (Fault::ForkKeepsLocks, 0),
    (Fault::ForgetAttempts, 68),
    (Fault::UnlinkTooEarly, 1),
    (Fault::TwoSenders, 0),
    (Fault::SettleWithoutADeadLetter, 1),
    (Fault::LoseTheFirstOfASegment, 0),
    (Fault::IgnoreTheBudget, 2),
    (Fault::ForgetTheBudget, 42),
    (Fault::SetAsideWithoutALookup, 210),
    (Fault::ResendAfterADay, 28),
    (Fault::SkipTheQuarantine, 36),
    (Fault::IgnoreTheRoom, 90),
    (Fault::NeverSystemic, 105),
    (Fault::OneIdTwice, 4),
    (Fault::AcceptUnsynced, 104),
    (Fault::AdoptTheLiving, 0),
    (Fault::LeaveTheDead, 0),
];
/// So many seeds are tried for each fault.
const MOST_SEEDS: u64 = 400;

/// What has to happen somewhere in the runs of the tests, or they test less than they say.
const EVERY_FAULT: &[&str] = &[
    "kill",
    "death",
    "fork",
    "stop",
    "exit",
    "suspend",
    "clock set",
    "power loss",
    "rot",
    "key rotation",
    "no key",
    "lock removed",
    "long outage",
    "overflow",
    "unreachable",
    "request lost",
    "answer lost",
    "answer cut",
    "slow",
    "late commit",
    "sent twice",
    "captive portal",
    "wrong count",
    "proxy",
    "tls failure",
    "io_errors",
    "read_only",
    "no_space",
    "short_writes",
    "sync_fails",
    "names_lost",
    "writes_lost",
    "writes_cut",
    "writes_scrambled",
];

fn run(seed: u64, fault: Option<Fault>, tracing: bool) -> Outcome {
    let world = AssertUnwindSafe(|| World::new(seed, fault, tracing).run());
    catch_unwind(world).unwrap_or_else(|_| {
        plant(None);
        Outcome { violations: vec!["a panic".into()], ..Outcome::default() }
    })
}

/// The sum of many outcomes.
#[derive(Debug, Default)]
struct Totals {
    runs: u64,
    sum: Outcome,
    /// The first seeds that violated something, and what.
    failed: BTreeMap<u64, Vec<String>>,
}

impl Totals {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.runs += 1;
        self.sum.events += outcome.events;
        self.sum.simulated_ms += outcome.simulated_ms;
        self.sum.accepted += outcome.accepted;
        self.sum.billed += outcome.billed;
        self.sum.requests += outcome.requests;
        for (fault, times) in outcome.faults {
            *self.sum.faults.entry(fault).or_default() += times;
        }
        if !outcome.violations.is_empty() {
            self.failed.insert(seed, outcome.violations);
        }
    }

    fn merge(&mut self, other: Self) {
        self.runs += other.runs - 1;
        self.failed.extend(other.failed);
        self.add(u64::MAX, other.sum);
    }

    fn print(&self) {
        println!(
            "{} runs, {} events, {} simulated hours, {} calls accepted, {} billed, {} requests",
            self.runs,
            self.sum.events,
            self.sum.simulated_ms / 3_600_000,
            self.sum.accepted,
            self.sum.billed,
            self.sum.requests,
        );
        for (fault, times) in &self.sum.faults {
            println!("  {fault:<18} {times}");
        }
        for (seed, violations) in self.failed.iter().take(10) {
            println!("seed {seed} violated: {}", violations.join("; "));
        }
    }
}

/// Runs seeds on as many threads as there are processors.
fn run_all(from: u64, seeds: u64) -> Totals {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    let mut totals = Totals::default();
                    for seed in (from..from + seeds).filter(|seed| seed % threads == worker) {
                        totals.add(seed, run(seed, None, false));
                    }
                    totals
                })
            })
            .collect();
        let mut totals = Totals::default();
        for worker in workers {
            totals.merge(worker.join().unwrap());
        }
        totals
    })
}

#[test]
fn no_promise_is_broken_in_two_thousand_runs() {
    let totals = run_all(0, 2_000);
    totals.print();
    assert!(totals.failed.is_empty(), "{:?}", totals.failed.first_key_value());
    for fault in EVERY_FAULT {
        assert!(totals.sum.faults.contains_key(fault), "{fault} never happened");
    }
}

#[test]
fn the_same_seed_does_the_same_again() {
    for seed in [1, 2, 3] {
        let (one, two) = (run(seed, None, true), run(seed, None, true));
        assert!(one.trace == two.trace && one.events == two.events, "seed {seed}");
    }
}

#[test]
fn every_planted_fault_is_found() {
    let missed: Vec<Fault> = FAULTS
        .iter()
        .filter(|(fault, likely)| {
            let mut seeds = std::iter::once(*likely).chain(0..MOST_SEEDS);
            let broken = |seed, fault| !run(seed, fault, false).violations.is_empty();
            let found = seeds.find(|seed| broken(*seed, Some(*fault)) && !broken(*seed, None));
            println!("{fault:?}: {}", found.map_or("never".into(), |seed| format!("seed {seed}")));
            found.is_none()
        })
        .map(|(fault, _)| *fault)
        .collect();
    assert_eq!(missed, []);
}

/// What `cargo xtask sim` runs: `SIM_SEEDS` seeds from `SIM_FROM`, or all of what happens in `SIM_SEED`.
#[test]
fn seeds_from_the_environment() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(seed) = number("SIM_SEED") {
        let outcome = run(seed, None, true);
        outcome.trace.iter().for_each(|line| println!("{line}"));
        assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
    } else if let Some(seeds) = number("SIM_SEEDS") {
        let totals = run_all(number("SIM_FROM").unwrap_or(0), seeds);
        totals.print();
        assert!(totals.failed.is_empty(), "{} seeds failed", totals.failed.len());
    }
}
