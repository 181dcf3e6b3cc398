//! Runs of many seeds, and the tests that are made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::network::PROXY;
use super::world::Trace;
use super::{Outcome, World};
use crate::planted::{Fault, plant};

/// A seed that found a planted fault when this was written, and words of what it found.
#[expect(clippy::match_same_arms, reason = "a table, one line for each")]
const fn found_by(fault: Fault) -> (u64, &'static str) {
    match fault {
        Fault::AcknowledgeWithoutAnAnswer => (1, "accepted calls are nowhere"),
        Fault::AnyBodyAcknowledges => (8, "was told Ok"),
        Fault::AnotherIdOnRetry => (0, "was billed as"),
        Fault::SkipTheChecksum => (2, "not the API's form"),
        Fault::CursorGoesBackward => (0, "knows of"),
        Fault::ForkKeepsDescriptors => (34, "came to no end"),
        Fault::ForgetAttempts => (7, "was billed 2 times"),
        Fault::UnlinkTooEarly => (1, "accepted calls are nowhere"),
        Fault::TwoSenders => (0, "in a second"),
        Fault::SettleWithoutADeadLetter => (1, "was told Ok"),
        Fault::LoseTheFirstOfASegment => (0, "was told Err(Storage)"),
        Fault::IgnoreTheBudget => (0, "in a second"),
        Fault::ForgetTheBudget => (482, "96 requests in a minute"),
        Fault::SetAsideWithoutALookup => (47, "set aside for certain"),
        Fault::ResendAfterADay => (7, "was billed 2 times"),
        Fault::TrustTheClock => (7, "was billed 2 times"),
        Fault::SkipTheQuarantine => (4, "its bytes were not kept"),
        Fault::IgnoreTheRoom => (27, "bytes on the disk"),
        Fault::NeverSystemic => (0, "by a refusal of all"),
        Fault::OneIdTwice => (0, "in one request twice"),
        Fault::AcceptUnsynced => (4, "accepted calls are nowhere"),
        Fault::AdoptTheLiving => (0, "was told Err(Storage)"),
        Fault::LeaveTheDead => (0, "came to no end"),
    }
}

/// So many seeds are tried for each fault.
const MOST_SEEDS: u64 = 400;

/// All that happens somewhere in the runs of the tests, or they test less than they say; with [`PROXY`].
const EVERY_EVENT: &[&str] = &[
    "kill",
    "death",
    "hand-over",
    "meanwhile",
    "fork",
    "stop",
    "exit",
    "flush",
    "suspend",
    "clock set",
    "power loss",
    "disk trouble",
    "rot",
    "key rotation",
    "no key",
    "lock removed",
    "long outage",
    "long refusal",
    "overflow",
    "set aside for its age",
    "unreachable",
    "request lost",
    "answer lost",
    "answer cut",
    "slow",
    "late commit",
    "sent twice",
    "captive portal",
    "wrong count",
    "tls failure",
    "invalid request",
    "401",
    "413",
    "429",
    "retry-after-ms",
    "x-should-retry true",
    "x-should-retry false",
    "skewed server",
    "forgotten id",
    "refusal of everything",
    "413 of everything",
    "poisoned event",
    "event answered 403",
    "event answered 500",
    "unknown customer 400",
    "unknown customer 404",
    "unknown customer 422",
    "look-up answered 200",
    "look-up answered 404",
    "look-up unanswered",
    "io_errors",
    "read_only",
    "no_space",
    "short_writes",
    "sync_fails",
    "names_lost",
    "writes_kept",
    "writes_lost",
    "writes_cut",
    "writes_scrambled",
    "power_loss",
];
/// How much of what happened in a seed that failed is shown.
const TAIL: usize = 150;

fn run(seed: u64, fault: Option<Fault>, tracing: bool) -> Outcome {
    let trace = tracing.then(Trace::default);
    let world = AssertUnwindSafe(|| World::new(seed, fault, trace.clone()).run());
    let outcome = catch_unwind(world).unwrap_or_else(|_| {
        plant(None);
        Outcome { violations: vec!["a panic".into()], ..Outcome::default() }
    });
    Outcome { trace: trace.map(|trace| trace.take()).unwrap_or_default(), ..outcome }
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
        self.count(&outcome);
        if !outcome.violations.is_empty() {
            self.failed.insert(seed, outcome.violations);
        }
    }

    fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.count(&other.sum);
        self.failed.extend(other.failed);
    }

    fn count(&mut self, outcome: &Outcome) {
        self.sum.events += outcome.events;
        self.sum.simulated_ms += outcome.simulated_ms;
        self.sum.accepted += outcome.accepted;
        self.sum.billed += outcome.billed;
        self.sum.requests += outcome.requests;
        for (fault, times) in &outcome.faults {
            *self.sum.faults.entry(fault).or_default() += times;
        }
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
            println!("  {fault:<22} {times}");
        }
        for (seed, violations) in self.failed.iter().take(10) {
            println!("seed {seed} violated: {}", violations.join("; "));
        }
    }

    /// Fails if a seed did, and shows what happened in the first before it did.
    fn succeeded(&self) {
        let Some((seed, violations)) = self.failed.first_key_value() else { return };
        let trace = run(*seed, None, true).trace;
        println!("the end of seed {seed}; `cargo xtask sim --seed {seed}` shows all:");
        trace[trace.len().saturating_sub(TAIL)..].iter().for_each(|line| println!("{line}"));
        panic!("{} seeds failed; seed {seed}: {}", self.failed.len(), violations.join("; "));
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
    totals.succeeded();
    let proxy = PROXY.iter().map(|(name, ..)| *name);
    let every: BTreeSet<&str> = EVERY_EVENT.iter().copied().chain(proxy).collect();
    let happened: BTreeSet<&str> = totals.sum.faults.keys().copied().collect();
    assert_eq!(happened, every);
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
    let found = |fault| {
        let (likely, words) = found_by(fault);
        let seed = std::iter::once(likely).chain(0..MOST_SEEDS).find(|seed| {
            let violations = run(*seed, Some(fault), false).violations;
            violations.iter().any(|violation| violation.contains(words))
                && run(*seed, None, false).violations.is_empty()
        });
        let by = |seed| run(seed, Some(fault), false).violations.swap_remove(0);
        println!(
            "{fault:?}: {}",
            seed.map_or("never".into(), |seed| format!("{seed}: {}", by(seed)))
        );
        seed.is_some()
    };
    let missed: Vec<&Fault> = Fault::ALL.iter().filter(|fault| !found(**fault)).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
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
        totals.succeeded();
    }
}
