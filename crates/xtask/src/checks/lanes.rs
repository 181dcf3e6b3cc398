//! Which step runs when: a thread for each lane, that begins the first step whose needs have ended.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use super::{Lane, Outcome, Part, Report, Step};

const LANES: [&[Lane]; 2] = [&[Lane::Cargo], &[Lane::Tools]];
const ONE_LANE: [&[Lane]; 1] = [&[Lane::Cargo, Lane::Tools]];

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
    let (ended, changed) = (Mutex::new(Vec::<Report>::new()), Condvar::new());
    let work = |lanes: &[Lane]| {
        let mut open: Vec<Job> =
            steps.iter().filter(|(_, step)| lanes.contains(&step.lane)).copied().collect();
        while !open.is_empty() {
            let mut reports = ended.lock().unwrap_or_else(PoisonError::into_inner);
            let ready = loop {
                if let Some(ready) = open.iter().position(|(_, step)| is_ready(step, &reports)) {
                    break ready;
                }
                reports = changed.wait(reports).unwrap_or_else(PoisonError::into_inner);
            };
            let (part, step) = open.remove(ready);
            let unmet = unmet(step, &reports);
            drop(reports);
            let outcome = run(part, step, unmet);
            let mut reports = ended.lock().unwrap_or_else(PoisonError::into_inner);
            reports.push(Report { step: step.id, outcome });
            changed.notify_all();
        }
    };
    let lanes = if one_at_a_time { &ONE_LANE[..] } else { &LANES[..] };
    thread::scope(|scope| {
        for lane in lanes {
            scope.spawn(|| work(lane));
        }
    });
    ended.into_inner().unwrap_or_else(PoisonError::into_inner)
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
