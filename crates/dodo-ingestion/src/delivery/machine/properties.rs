//! What holds of telling bad records apart, whichever they are.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::tests::{World, ok, refused, response};
use crate::config::LatePolicy;
use crate::delivery::Cause;
use crate::delivery::answer::{Answer, Failure};
use crate::validate::limits::EVENTS_PER_REQUEST;

/// Answers every request by the records that it holds, until each is settled or set aside.
fn deliver(world: &mut World, records: u64, bad: &BTreeSet<u64>) {
    world.append(records);
    let mut answered = 0;
    while world.settled.len() + world.aside.len() < records as usize {
        if world.sent.len() == answered {
            world.wait();
            continue;
        }
        answered = world.sent.len();
        assert!(answered < 10_000, "no progress");
        let holds_bad = world.last().iter().any(|seq| bad.contains(seq));
        world.answer(if holds_bad { refused() } else { ok() });
    }
}

/// What is answered where the server fails on something, or a firewall dislikes it.
fn failing_answer(how: usize) -> Answer {
    match how {
        0 => Answer::Failed(Failure::Lost("timeout".into())),
        how => response([500, 403, 406][how - 1], ""),
    }
}

/// What was settled or set aside, as often as it was.
fn ended(world: &World) -> Vec<u64> {
    let aside = world.aside.iter().map(|(seq, _)| *seq);
    let mut ended: Vec<u64> = world.settled.iter().copied().chain(aside).collect();
    ended.sort_unstable();
    ended
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    /// Fewer than eight groups hold bad records: some of them one or two, the others nothing else.
    #[test]
    fn exactly_the_bad_are_set_aside_within_a_bound_of_requests(
        records in 1_u64..3_000,
        groups in 1_u64..200,
        some_bad in proptest::collection::vec((any::<u64>(), 1_usize..3), 0..4),
        all_bad in proptest::collection::btree_set(any::<u64>(), 0..4),
    ) {
        let mut world = World::new(LatePolicy::Restamp);
        world.groups = groups;
        let of_group = |group: u64| (0..records).filter(move |seq| seq % groups == group % groups);
        let mut bad: BTreeSet<u64> = all_bad.iter().flat_map(|group| of_group(*group)).collect();
        for (group, count) in &some_bad {
            // A group that was drawn before has its bad ones.
            if of_group(*group).all(|seq| !bad.contains(&seq)) {
                let skip = (group >> 32) as usize % of_group(*group).count().max(1);
                bad.extend(of_group(*group).skip(skip).take(*count));
            }
        }
        deliver(&mut world, records, &bad);
        let aside: BTreeSet<u64> = world.aside.iter().map(|(seq, _)| *seq).collect();
        prop_assert_eq!(&aside, &bad);
        prop_assert_eq!(world.aside.len(), bad.len(), "each once");
        let settled: BTreeSet<u64> = world.settled.iter().copied().collect();
        prop_assert_eq!(settled.len(), world.settled.len(), "each once");
        prop_assert!(settled.is_disjoint(&bad));

        // The requests that the good ones take; for each of up to three records of a bad group a search
        // by halves, of twelve steps, a first and a last; and what follows of its kind together.
        let full = records.div_ceil(EVENTS_PER_REQUEST as u64) as usize;
        let bad_groups: BTreeSet<u64> = bad.iter().map(|seq| seq % groups).collect();
        let searches: usize = bad_groups
            .iter()
            .map(|group| bad.iter().filter(|seq| *seq % groups == *group).count().min(3))
            .sum();
        let bound = full * (1 + bad_groups.len()) + 2 * searches * 14;
        prop_assert!(world.sent.len() <= bound, "{} requests, at most {bound}", world.sent.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever the server answers, each record is settled or set aside once, the bad ones and no
    /// others are set aside, and the budget holds.
    #[test]
    fn every_record_ends_where_it_belongs(
        records in 1_u64..3_000,
        // A few of any groups, or so many of one that it is condemned.
        bad in prop_oneof![
            proptest::collection::btree_set(0_u64..3_000, 0..8),
            proptest::collection::btree_set((0_u64..300).prop_map(|n| 10 * n + 3), 4..11),
        ],
        answers in proptest::collection::vec(0_u8..8, 0..60),
    ) {
        let mut world = World::new(LatePolicy::Restamp);
        world.append(records);
        let mut answers = answers.into_iter();
        let mut starts = Vec::new();
        let mut answered = 0;
        while world.settled.len() + world.aside.len() < records as usize {
            prop_assert!(starts.len() < 2_000, "no progress");
            if world.sent.len() == answered {
                world.wait();
                continue;
            }
            answered = world.sent.len();
            starts.push(world.now.mono);
            let holds_bad = world.last().iter().any(|seq| bad.contains(seq));
            let answer = match answers.next().unwrap_or(0) {
                1 => Answer::Failed(Failure::Lost("timeout".into())),
                2 => Answer::Failed(Failure::Connect("refused".into())),
                3 => response(503, ""),
                4 => response(429, ""),
                5 => response(200, "<html>"),
                6 => response(401, ""),
                7 if world.last().len() > 1 => response(413, ""),
                _ if holds_bad => refused(),
                _ => ok(),
            };
            world.answer(answer);
        }
        prop_assert_eq!(ended(&world), (0..records).collect::<Vec<_>>());
        let by_itself = |(seq, cause): &(u64, Cause)| bad.contains(seq) || cause.by_group;
        prop_assert!(world.aside.iter().all(by_itself));
        prop_assert!(bad.iter().filter(|seq| **seq < records).all(|seq| !world.settled.contains(seq)));
        for (seq, _) in world.aside.iter().filter(|(seq, _)| !bad.contains(seq)) {
            let of_group = bad.iter().filter(|bad| *bad % 10 == seq % 10).count();
            prop_assert!(of_group > 3, "{} was set aside with its group", seq);
        }
        for (i, start) in starts.iter().enumerate() {
            let within = |ms| starts[..=i].iter().filter(|s| **s + ms > *start).count();
            prop_assert!(within(60_000) <= 95 && within(1_000) <= 9);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// Whatever the server fails on, and however, all else is settled; and when it works, so is that, once.
    #[test]
    fn what_the_server_fails_on_is_kept_and_holds_up_nothing(
        records in 1_u64..3_000,
        groups in 1_u64..200,
        some_bad in proptest::collection::btree_set(0_u64..3_000, 0..20),
        all_bad in proptest::collection::btree_set(any::<u64>(), 0..4),
        chance in proptest::collection::vec(0_u8..6, 0..60),
        how in 0_usize..4,
    ) {
        let mut world = World::new(LatePolicy::Restamp);
        world.groups = groups;
        let is_bad = |seq: u64| {
            some_bad.contains(&seq) || all_bad.iter().any(|group| seq % groups == group % groups)
        };
        let good: BTreeSet<u64> = (0..records).filter(|seq| !is_bad(*seq)).collect();
        world.append(records);
        let mut chance = chance.into_iter();
        let (mut answered, mut works) = (0, false);
        while world.settled.len() < records as usize {
            works |= world.settled.len() >= good.len() && good.iter().all(|seq| world.settled.contains(seq));
            if world.sent.len() == answered {
                world.wait();
                continue;
            }
            answered = world.sent.len();
            prop_assert!(answered < 20_000, "{} of {} good ones settled", world.settled.len(), good.len());
            let lost = || Answer::Failed(Failure::Lost("timeout".into()));
            let holds_bad = world.last().iter().any(|seq| is_bad(*seq));
            let answer = match chance.next().unwrap_or(0) {
                1 => lost(),
                2 => response(503, ""),
                _ if holds_bad && !works => failing_answer(how),
                _ => ok(),
            };
            world.answer(answer);
        }
        prop_assert!(world.aside.is_empty());
        let settled: BTreeSet<u64> = world.settled.iter().copied().collect();
        prop_assert_eq!(settled.len(), records as usize, "each once");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever the server refuses, and whatever it fails on meanwhile, ends where it belongs, once.
    #[test]
    fn what_is_refused_and_what_is_failed_on_do_not_hide_each_other(
        portions in proptest::collection::vec(1_u64..700, 1..4),
        groups in 1_u64..200,
        failed_on in proptest::collection::btree_set(0_u64..2_000, 0..12),
        groups_failed_on in proptest::collection::btree_set(any::<u64>(), 0..3),
        refusals in proptest::collection::btree_set(0_u64..2_000, 0..5),
        groups_refused in proptest::collection::btree_set(any::<u64>(), 0..3),
        chance in proptest::collection::vec(0_u8..12, 0..80),
        (how, refuses_first) in (0_usize..4, any::<bool>()),
    ) {
        let mut world = World::new(LatePolicy::Restamp);
        // The last group is not bad as a whole.
        world.groups = groups + 1;
        let group = |seq: u64| seq % (groups + 1);
        let of = |all: &BTreeSet<u64>, seq| all.iter().any(|bad| group(seq) == bad % groups);
        let is_refused = |seq: u64| refusals.contains(&seq) || of(&groups_refused, seq);
        let fails = |seq: u64| failed_on.contains(&seq) || of(&groups_failed_on, seq);
        let is_done = |world: &World, seq: u64| {
            world.settled.contains(&seq) || world.aside.iter().any(|(aside, _)| *aside == seq)
        };
        let records: u64 = portions.iter().sum();
        let mut portions = portions.into_iter().enumerate();
        let mut chance = chance.into_iter();
        let (mut answered, mut lookups, mut works) = (0, 0, false);
        while world.settled.len() + world.aside.len() < records as usize {
            let idle = world.sent.len() == answered && world.delivery.wake_at().is_none();
            let next = portions.clone().next().filter(|(nth, _)| idle || answered >= 50 * nth);
            if let Some((_, more)) = next {
                portions.next();
                world.append(more);
            }
            if world.sent.len() == answered {
                world.wait();
                continue;
            }
            answered = world.sent.len();
            // Looking at all of them takes its time.
            works |= answered % 50 == 0 && (0..records).all(|seq| fails(seq) || is_done(&world, seq));
            prop_assert!(answered < 20_000, "no progress; works: {works}");
            let is_lookup = world.looked_up() > lookups;
            lookups = world.looked_up();
            let lost = || Answer::Failed(Failure::Lost("timeout".into()));
            let refused_one = world.last().iter().any(|seq| is_refused(*seq));
            let failed_one = !works && world.last().iter().any(|seq| fails(*seq));
            let answer = match chance.next().unwrap_or(0) {
                1 => lost(),
                2 => Answer::Failed(Failure::Connect("refused".into())),
                3 => response(503, ""),
                4 => response(429, ""),
                5 => response(401, ""),
                6 if world.last().len() > 1 => response(413, ""),
                _ if is_lookup => response(404, r#"{"code":"NOT_FOUND","message":"no"}"#),
                _ if refused_one && (refuses_first || !failed_one) => refused(),
                _ if failed_one => failing_answer(how),
                _ => ok(),
            };
            world.answer(answer);
        }
        prop_assert_eq!(ended(&world), (0..records).collect::<Vec<_>>());
        prop_assert!(world.settled.iter().all(|seq| !is_refused(*seq)));
        for (seq, cause) in world.aside.iter().filter(|(seq, _)| !is_refused(*seq)) {
            let of_group = (0..records).filter(|other| group(*other) == group(*seq));
            let refused = of_group.filter(|other| is_refused(*other)).count();
            prop_assert!(cause.by_group && refused > 3, "{} was set aside", seq);
        }
    }
}

#[test]
fn good_calls_of_a_condemned_group_may_go_with_its_bad_ones() {
    let mut world = World::new(LatePolicy::Restamp);
    let bad: BTreeSet<u64> = (0..10).map(|n| 10 * n + 3).collect();
    deliver(&mut world, 1_000, &bad);
    let (by_group, alone): (Vec<_>, Vec<_>) =
        world.aside.iter().partition(|(_, cause)| cause.by_group);
    assert_eq!(alone.len(), 3);
    assert!(alone.iter().all(|(seq, _)| bad.contains(seq)));
    assert!(by_group.iter().all(|(seq, _)| world.group(*seq) == 3));
    assert!(by_group.iter().any(|(seq, _)| !bad.contains(seq)), "{by_group:?}");
}

/// Of three customers two are denied on every call, and the third on few: it is told apart by a control when so many
/// were denied in a row that what was taken before shows no more.
#[test]
fn many_denials_in_a_row_hold_up_nobody_for_long() {
    let (records, some_bad) = (767, [29, 278, 548]);
    let is_bad = |seq: u64| seq % 3 != 2 || some_bad.contains(&seq);
    let good = (0..records).filter(|seq| !is_bad(*seq)).count();
    let mut world = World::new(LatePolicy::Restamp);
    world.groups = 3;
    world.append(records);
    let mut answered = 0;
    while world.settled.len() < good {
        if world.sent.len() == answered {
            world.wait();
            continue;
        }
        answered = world.sent.len();
        assert!(answered < 200, "{} of {good} good ones settled", world.settled.len());
        let holds_bad = world.last().iter().any(|seq| is_bad(*seq));
        world.answer(match answered {
            6 => response(503, ""),
            _ if holds_bad => response(403, ""),
            _ => ok(),
        });
    }
}
