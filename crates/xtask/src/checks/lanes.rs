//! Which step runs when: threads that each begin a step whose needs have ended, one that others wait for before one that
//! nothing needs.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use super::{Lane, Outcome, Part, Report, Step};

/// A thread each. What mostly waits does so two at a time.
const LANES: &[&[Lane]] = &[&[Lane::Cargo], &[Lane::Tools], &[Lane::Tools]];
const ONE_LANE: &[&[Lane]] = &[&[Lane::Cargo, Lane::Tools]];

type Job = (&'static Part, &'static Step);

pub(super) fn in_order(parts: &'static [Part], selected: &BTreeSet<&'static str>) -> Vec<Job> {
    let all = parts.iter().flat_map(|part| part.steps.iter().map(move |step| (part, step)));
    all.filter(|(_, step)| selected.contains(step.id)).collect()
}

/// Runs every step with `run`, which is told of the first need that has not passed. All that a step needs must be
/// among the steps, before it.
pub(super) fn run(
    steps: &[Job],
    one_at_a_time: bool,
    run: impl Fn(&'static Part, &'static Step, Option<&'static str>) -> Outcome + Sync,
) -> Vec<Report> {
    let state = Mutex::new(State { open: steps.to_vec(), reports: Vec::new() });
    let changed = Condvar::new();
    let work = |lanes: &[Lane]| {
        let mut now = state.lock().unwrap_or_else(PoisonError::into_inner);
        while now.open.iter().any(|(_, step)| lanes.contains(&step.lane)) {
            let Some(next) = now.next(lanes) else {
                now = changed.wait(now).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let (part, step) = now.open.remove(next);
            let unmet = unmet(step, &now.reports);
            drop(now);
            let outcome = run(part, step, unmet);
            now = state.lock().unwrap_or_else(PoisonError::into_inner);
            now.reports.push(Report { step: step.id, outcome });
            changed.notify_all();
        }
    };
    thread::scope(|scope| {
        for lanes in if one_at_a_time { ONE_LANE } else { LANES } {
            scope.spawn(|| work(lanes));
        }
    });
    state.into_inner().unwrap_or_else(PoisonError::into_inner).reports
}

/// What is to be begun, and what has ended.
struct State {
    open: Vec<Job>,
    reports: Vec<Report>,
}

impl State {
    /// The place among the open steps of the one to begin now.
    fn next(&self, lanes: &[Lane]) -> Option<usize> {
        let ready = |(_, step): &Job| lanes.contains(&step.lane) && is_ready(step, &self.reports);
        let needed =
            |(_, step): &Job| self.open.iter().any(|(_, other)| other.needs.contains(&step.id));
        let first = self.open.iter().position(|job| ready(job) && needed(job));
        first.or_else(|| self.open.iter().position(ready))
    }
}

fn is_ready(step: &Step, reports: &[Report]) -> bool {
    step.needs.iter().all(|id| reports.iter().any(|report| report.step == *id))
}

/// The first of the steps that a step needs which has not passed.
fn unmet(step: &Step, reports: &[Report]) -> Option<&'static str> {
    let passed = |id: &str| {
        reports
            .iter()
            .any(|report| report.step == id && matches!(report.outcome, Outcome::Passed(_)))
    };
    step.needs.iter().find(|id| !passed(id)).copied()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use anyhow::anyhow;

    use super::super::Tally;
    use super::*;

    const fn step(id: &'static str, needs: &'static [&'static str], lane: Lane) -> Step {
        Step { id, about: "", needs, lane, runner: None, run: |_| Ok(()) }
    }

    const PART: Part = Part {
        name: "a",
        manifest: "a",
        requires: &[],
        steps: &[
            step("a/build", &[], Lane::Cargo),
            step("a/test", &["a/build", "a/setup"], Lane::Tools),
            step("a/setup", &[], Lane::Tools),
            step("a/lint", &["a/test"], Lane::Cargo),
        ],
    };

    fn steps() -> Vec<Job> {
        PART.steps.iter().map(|step| (&PART, step)).collect()
    }

    #[test]
    fn a_step_begins_when_what_it_needs_has_ended_and_those_that_can_do_so_at_once() {
        let (built, build_may_end) = mpsc::sync_channel(0);
        let build_may_end = Mutex::new(build_may_end);
        let reports = run(&steps(), false, |_, step, unmet| {
            assert_eq!(unmet, None);
            match step.id {
                // It ends only while the other lane is at work.
                "a/build" => build_may_end.lock().unwrap().recv().unwrap(),
                "a/setup" => built.send(()).unwrap(),
                _ => {}
            }
            Outcome::Passed(Tally::default())
        });
        let order: Vec<&str> = reports.iter().map(|report| report.step).collect();
        assert_eq!(order[2..], ["a/test", "a/lint"]);
    }

    #[test]
    fn what_mostly_waits_does_so_two_at_a_time() {
        const STEPS: &[Step] = &[step("a/one", &[], Lane::Tools), step("a/two", &[], Lane::Tools)];
        let both = std::sync::Barrier::new(2);
        let steps: Vec<Job> = STEPS.iter().map(|step| (&PART, step)).collect();
        let reports = run(&steps, false, |_, _, _| {
            both.wait();
            Outcome::Passed(Tally::default())
        });
        assert_eq!(reports.len(), 2);
    }

    #[test]
    fn what_others_wait_for_is_begun_first() {
        const STEPS: &[Step] = &[
            step("a/lint", &[], Lane::Tools),
            step("a/setup", &[], Lane::Tools),
            step("a/test", &["a/setup"], Lane::Tools),
        ];
        let steps: Vec<Job> = STEPS.iter().map(|step| (&PART, step)).collect();
        let reports = run(&steps, true, |_, _, _| Outcome::Passed(Tally::default()));
        let order: Vec<&str> = reports.iter().map(|report| report.step).collect();
        assert_eq!(order, ["a/setup", "a/lint", "a/test"]);
    }

    #[test]
    fn what_needs_a_step_that_failed_is_told_so() {
        for one_at_a_time in [false, true] {
            let told = Mutex::new(Vec::new());
            run(&steps(), one_at_a_time, |_, step, unmet| {
                told.lock().unwrap().push((step.id, unmet));
                match step.id {
                    "a/build" => {
                        Outcome::Failed { error: anyhow!("it broke"), tally: Tally::default() }
                    }
                    _ if unmet.is_some() => Outcome::Skipped(String::new()),
                    _ => Outcome::Passed(Tally::default()),
                }
            });
            let told = told.into_inner().unwrap();
            assert!(told.contains(&("a/setup", None)));
            assert!(told.ends_with(&[("a/test", Some("a/build")), ("a/lint", Some("a/test"))]));
        }
    }
}
