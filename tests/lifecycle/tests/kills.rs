//! Two hundred kills, and a bill that is exact after each scenario.
//!
//! `LIFECYCLE_SEED` repeats the choices of a run; `cargo xtask soak kill` goes on for longer.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;

use dodo_ingestion_lifecycle::{Act, Budget, FULL_SPEED_PAUSE_MS, Plan, Report, run};

/// Runs a plan, reports it past the test harness, which keeps what is printed to itself, and fails if
/// anything is wrong.
fn exact(plan: &Plan) -> Report {
    let seed = std::env::var("LIFECYCLE_SEED").map(|seed| seed.parse().unwrap());
    let report = run(plan, seed.unwrap_or_else(|_| fastrand::u64(..)))
        .unwrap_or_else(|error| panic!("{error:#}"));
    let mut stderr = std::io::stderr();
    writeln!(stderr, "\n{report}").unwrap();
    assert!(report.differences.is_empty(), "{report}");
    assert!(report.accepted > 0 && report.requests > 0);
    report
}

fn plan(name: &'static str, writers: usize, acts: &[(Act, u32)]) -> Plan {
    let (pause_ms, budget) = (50..=300, Budget::Ample);
    Plan { name, writers, acts: acts.to_vec(), pause_ms, full_speed: false, budget }
}

/// The same with writers in haste and little time between kills: some die in a call.
fn at_full_speed(plan: Plan) -> Report {
    let report = exact(&Plan { full_speed: true, pause_ms: FULL_SPEED_PAUSE_MS, ..plan });
    assert!(report.kills.in_a_call > 0, "no writer died in a call");
    report
}

#[test]
fn a_writer_is_killed_again_and_again() {
    let report = at_full_speed(plan("one writer", 1, &[(Act::KillWriter, 40)]));
    assert_eq!(report.kills.total(), 40);
}

#[test]
fn writers_of_one_namespace_and_their_sender_are_killed() {
    let acts = [(Act::KillWriter, 25), (Act::KillSender, 30)];
    let report = at_full_speed(plan("several writers", 4, &acts));
    assert_eq!((report.kills.writers, report.kills.senders), (25, 30));
}

#[test]
fn the_meter_is_killed_and_comes_back() {
    let report = exact(&plan("meter", 2, &[(Act::KillMeter, 30)]));
    assert_eq!(report.kills.meters, 30);
    assert_eq!(report.accepted, report.attempted, "nobody died who could have accepted");
    assert_eq!(report.billed, report.attempted);
}

#[test]
fn while_the_sender_is_stopped_the_others_go_on_and_nothing_is_doubled() {
    let report = exact(&plan("stops", 3, &[(Act::StopSender, 10), (Act::StopMeter, 5)]));
    assert_eq!((report.kills.total(), report.stops), (0, 15));
    assert_eq!(report.accepted, report.attempted);
    assert_eq!(report.billed, report.attempted);
}

#[test]
fn everything_at_once() {
    let report = at_full_speed(Plan::mixed(60));
    assert_eq!(report.kills.total(), 60);
}

#[test]
fn those_who_come_after_keep_the_published_budget_and_nothing_is_refused() {
    let acts = [(Act::KillWriter, 10), (Act::KillSender, 5)];
    let report = exact(&Plan { budget: Budget::Published, ..plan("published budget", 3, &acts) });
    assert_eq!(report.kills.total(), 15);
}
