use super::*;

const fn step(id: &'static str, needs: &'static [&'static str]) -> Step {
    Step { id, about: "", needs, lane: Lane::Tools, runner: None, run: |_| Ok(()) }
}

const A: &[Step] = &[step("a/build", &[]), step("a/test", &["a/build"]), step("a/lint", &[])];
const B: &[Step] = &[step("b/setup", &[]), step("b/test", &["b/setup", "a/build"])];
const SAMPLE: &[Part] = &[
    Part { name: "a", manifest: "a", requires: &[], steps: A },
    Part { name: "b", manifest: "b", requires: &[], steps: B },
];

fn selected(only: &[&str]) -> Vec<&'static str> {
    let only: Vec<String> = only.iter().map(ToString::to_string).collect();
    select(SAMPLE, &only).unwrap().into_iter().collect()
}

fn tally(passed: u64, failed: u64, skipped: u64) -> Tally {
    Tally { passed, failed, skipped, ..Tally::default() }
}

fn report(step: &'static str, outcome: Outcome) -> Report {
    Report { step, outcome }
}

fn failed(tally: Tally) -> Outcome {
    Outcome::Failed { error: anyhow!("it broke"), tally }
}

#[test]
fn a_selection_takes_along_what_it_needs() {
    assert_eq!(selected(&[]).len(), 5);
    assert_eq!(selected(&["b"]), ["a/build", "b/setup", "b/test"]);
    assert_eq!(selected(&["a/lint", "b/setup"]), ["a/lint", "b/setup"]);
}

#[test]
fn an_unknown_selection_names_the_known_ones() {
    let error = select(SAMPLE, &["c".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("`c`") && error.contains("a, b"), "{error}");
}

#[test]
fn the_real_steps_are_named_after_their_parts_and_need_only_earlier_ones() {
    let mut seen = BTreeSet::new();
    for part in PARTS {
        for step in part.steps {
            assert_eq!(part_of(step.id), part.name);
            for needed in step.needs {
                assert!(seen.contains(needed), "{} needs {needed}", step.id);
            }
            assert!(seen.insert(step.id), "{} is there twice", step.id);
        }
    }
}

#[test]
fn a_test_step_without_tests_has_failed() {
    let nothing = Tally::default;
    assert!(matches!(judge(true, Ok(()), nothing()), Outcome::Failed { .. }));
    assert!(matches!(judge(true, Ok(()), tally(1, 0, 0)), Outcome::Passed(_)));
    assert!(matches!(judge(false, Ok(()), nothing()), Outcome::Passed(_)));
}

#[test]
fn the_total_shows_failures_that_no_runner_counted() {
    let reports = [
        report("a/test", Outcome::Passed(tally(10, 0, 1))),
        report("a/lint", failed(Tally::default())),
        report("b/test", failed(tally(3, 2, 0))),
        report("b/more", Outcome::Skipped("no JDK 17+".to_owned())),
    ];
    assert_eq!(total(&reports), tally(13, 3, 2));
}

#[test]
fn what_is_missing_is_skipped_but_fails_where_nothing_may_be_left_out() {
    let missing: Missing = vec![(Requirement::Jdk, anyhow!("not found"))];
    let Outcome::Skipped(reason) = without(&missing, false) else { panic!("not skipped") };
    assert_eq!(reason, "no JDK 17+ (apt-get install default-jdk-headless)");
    assert!(matches!(without(&missing, true), Outcome::Failed { .. }));
}

#[test]
fn a_tail_is_the_end() {
    assert_eq!(tail("1\n2\n3\n", 2), "   | 2\n   | 3\n");
    assert_eq!(tail("1\n", 2), "   | 1\n");
    assert_eq!(tail("", 2), "");
}
