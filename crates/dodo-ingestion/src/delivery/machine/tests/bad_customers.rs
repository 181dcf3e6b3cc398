//! Customers that are refused, and a refusal of everything.

use std::collections::BTreeSet;

use super::*;

#[test]
fn a_bad_customer_costs_a_few_requests_and_then_travels_apart() {
    let mut world = World::new(LatePolicy::Restamp);
    world.groups = 10;
    world.append(1_000);
    run(&mut world, 200, |group| group == 3);
    assert_eq!((world.settled.len(), world.aside.len()), (900, 100));
    assert!(world.aside.iter().all(|(seq, _)| world.group(*seq) == 3));
    assert_eq!(world.aside.iter().filter(|(_, cause)| !cause.by_group).count(), 3);
    assert!(world.sent.len() < 25, "{}", world.sent.len());

    // From now on it costs the others nothing but its own requests.
    let before = world.sent.len();
    world.append(1_000);
    run(&mut world, 300, |group| group == 3);
    assert_eq!((world.settled.len(), world.aside.len()), (1_800, 200));
    assert!(world.sent.len() - before <= 3, "{}", world.sent.len() - before);

    // The customer is made known: its calls are billed again.
    world.append(1_000);
    run(&mut world, 400, |_| false);
    assert_eq!((world.settled.len(), world.aside.len()), (2_800, 200));
    assert!(!world.delivery.refusals.any_apart());
}

#[test]
fn twenty_unknown_customers_among_a_thousand_hardly_slow_the_known() {
    let (without, _) = until_settled(&|_| false, &refused);
    let (with, _) = until_settled(&|group| group % 50 == 7, &refused);
    println!("the known calls were settled after {with} s; {without} s without unknown ones");
    assert!(with < without * 1.1, "{with} s against {without} s");
}

/// Whether a group is bad.
pub(super) type Bad<'a> = &'a dyn Fn(u64) -> bool;
/// What a request is answered that holds a record of a bad one.
pub(super) type How<'a> = &'a dyn Fn() -> Answer;

/// Ten minutes at almost half of what the budget allows, of a thousand customers: after how many seconds the calls of
/// all but the bad ones are settled.
pub(super) fn until_settled(bad: Bad<'_>, how: How<'_>) -> (f64, World) {
    let mut world = World::new(LatePolicy::Restamp);
    world.groups = 1_000;
    let start = world.now.mono;
    for _ in 0..600 {
        world.append(700);
        run_for(&mut world, 1_000, bad, how);
    }
    let good = (0..world.appended).filter(|seq| !bad(world.group(*seq))).count();
    while world.settled.len() < good {
        assert!(world.now.mono < start + 20 * 3_600_000, "{} of {good}", world.settled.len());
        run_for(&mut world, 1_000, bad, how);
    }
    ((world.now.mono - start) as f64 / 1e3, world)
}

/// Answers requests by the groups they hold, for so long.
fn run_for(world: &mut World, ms: u64, bad: Bad<'_>, how: How<'_>) {
    let end = world.now.mono + ms;
    while world.now.mono < end {
        if world.delivery.under_way.is_some() {
            let holds_bad = world.last().iter().any(|seq| bad(world.group(*seq)));
            world.answer(if holds_bad { how() } else { ok() });
            continue;
        }
        let wake_at = world.delivery.wake_at().unwrap_or(end).min(end);
        world.pass(wake_at.saturating_sub(world.now.mono).max(1));
    }
}

#[test]
fn a_systemic_refusal_sets_eight_calls_aside_and_then_waits() {
    let mut world = World::new(LatePolicy::Restamp);
    world.groups = 500;
    world.append(1_500);
    run(&mut world, 200, |_| true);
    assert_eq!((world.settled.len(), world.aside.len()), (0, 8));
    assert!(world.alarms.contains(&AlarmKind::Systemic));
    assert_eq!(world.delivery.trouble(), Some(Trouble::Systemic));
    let probes: Vec<_> = world.sent.iter().rev().take(20).map(|(_, seqs)| seqs.clone()).collect();
    assert!(probes.iter().all(|seqs| seqs.len() == 1));
    let groups: BTreeSet<_> = probes.iter().map(|seqs| world.group(seqs[0])).collect();
    assert!(groups.len() > 1, "one bad customer cannot stop the probing");
    run(&mut world, 400, |_| false);
    assert!(world.alarms.contains(&AlarmKind::Resumed));
    assert_eq!(world.delivery.trouble(), None);
    assert_eq!((world.settled.len(), world.aside.len()), (1_492, 8));
}

#[test]
fn whoever_says_of_every_call_that_it_is_too_large_refuses_everything() {
    let too_large = || response(413, "<html>");
    let mut world = World::new(LatePolicy::Restamp);
    world.groups = 500;
    world.append(1_500);
    for _ in 0..300 {
        until_request(&mut world);
        world.answer(too_large());
    }
    assert_eq!((world.settled.len(), world.aside.len()), (0, 8));
    assert!(world.aside.iter().all(|(_, cause)| cause.kind == ErrorKind::Rejected));
    assert_eq!(world.delivery.trouble(), Some(Trouble::Systemic));
    // A call that may really be too large says nothing of the others.
    let mut world = World::new(LatePolicy::Restamp);
    let large = |seq: u64| Meta { json_bytes: 100_000, group: seq, ..meta(seq, 0) };
    world.unread.entry(0).or_default().extend((0..12).map(large));
    world.handle(Input::Tick);
    while world.aside.len() < 12 {
        until_request(&mut world);
        world.answer(too_large());
    }
    assert!(world.aside.iter().all(|(_, cause)| cause.kind == ErrorKind::TooLarge));
    assert_eq!(world.delivery.trouble(), None);
}

/// Brings about a stop by customers who stay unknown: group 0 and those up to `bad`.
fn stopped_by(world: &mut World, bad: u64) {
    for seq in 0..bad * 250 {
        let meta = Meta { group: seq % bad, ..meta(seq, 1_000) };
        world.unread.entry(0).or_default().push_back(meta);
    }
    world.handle(Input::Tick);
    for _ in 0..100 {
        until_request(world);
        world.answer(refused());
        if world.delivery.trouble() == Some(Trouble::Systemic) {
            return;
        }
    }
    panic!("no stop");
}

/// Answers requests until a stop is over. Returns how many of them were refused.
fn probe(world: &mut World, most: usize, is_bad: impl Fn(u64) -> bool) -> usize {
    for probes in 0..=most {
        wait_for_request(world);
        assert_eq!(world.last().len(), 1);
        if !is_bad(world.last()[0]) {
            world.answer(ok());
            assert_eq!(world.delivery.trouble(), None);
            return probes;
        }
        world.answer(refused());
    }
    panic!("still stopped after {most} probes");
}

/// Bad customers fill the window of the first spool, and good calls come behind them in it, and in another.
fn known_behind_unknown(bad: u64, spool: SpoolId) {
    const GOOD: u64 = 1_000_000;
    let mut world = World::new(LatePolicy::Restamp);
    stopped_by(&mut world, bad);
    let metas = (0..500).map(|n| Meta { group: 1_000 + n % 5, ..meta(GOOD + n, 1_000) });
    world.unread.entry(spool).or_default().extend(metas);
    if spool > 0 {
        world.handle(Input::Available { spool, metas: Vec::new() });
    }
    world.handle(Input::Tick);
    probe(&mut world, bad as usize, |seq| seq < GOOD);
    for _ in 0..2_000 {
        if world.settled.len() == 500 {
            return;
        }
        until_request(&mut world);
        let bad = world.last().iter().any(|seq| *seq < GOOD);
        world.answer(if bad { refused() } else { ok() });
    }
    panic!("{} settled", world.settled.len());
}

#[test]
fn known_customers_behind_unknown_ones_end_a_stop() {
    for bad in [8, 12, 40] {
        known_behind_unknown(bad, 0);
        known_behind_unknown(bad, 1);
    }
}

#[test]
fn while_all_are_refused_each_group_is_tried_in_turn() {
    let mut world = World::new(LatePolicy::Restamp);
    stopped_by(&mut world, 20);
    let mut probed = Vec::new();
    for _ in 0..40 {
        wait_for_request(&mut world);
        probed.push(world.last()[0] % 20);
        world.answer(refused());
    }
    let all: BTreeSet<u64> = (0..20).collect();
    assert_eq!(probed[20..].iter().copied().collect::<BTreeSet<_>>(), all, "{probed:?}");
    assert_eq!(probed[..12].iter().collect::<BTreeSet<_>>().len(), 12, "the others first");
    assert_eq!((world.settled.len(), world.aside.len()), (0, 8));
    // Any of them may be made known.
    let known = *probed.iter().min().unwrap();
    assert!(probe(&mut world, 20, |seq| seq % 20 != known) <= 20);
}

#[test]
fn what_needs_a_lookup_is_looked_up_while_all_are_refused() {
    let mut world = World::new(LatePolicy::Restamp);
    stopped_by(&mut world, 8);
    // The unknown calls are tried meanwhile.
    let id_hash = crate::delivery::id_hash(b"mine");
    let first = Now { wall: world.now.wall - 23 * 3_600_000, ..world.now };
    let group = 1_000;
    let old = |seq| Meta { maybe_sent: Some(first), id_hash, group, ..meta(seq, 0) };
    world.attempted.insert(1, 12);
    world.handle(Input::Available { spool: 1, metas: vec![old(10), old(11)] });
    wait_for_request(&mut world);
    assert_eq!(world.looked_up, [10]);
    world.answer(response(200, r#"{"event_id":"mine"}"#));
    assert_eq!(world.settled, [10]);
    until_request(&mut world);
    world.answer(unknown());
    assert_eq!(world.looked_up, [10, 11]);
    assert_eq!(world.delivery.trouble(), Some(Trouble::Systemic), "a look-up shows nothing of it");
    until_request(&mut world);
    assert_eq!(world.last(), [11]);
    world.answer(ok());
    assert_eq!(world.delivery.trouble(), None);
}

#[test]
fn three_hundred_unknown_customers_among_a_thousand_do_not_stop_the_known() {
    let mut world = World::new(LatePolicy::Restamp);
    world.groups = 1_000;
    let bad = |group: u64| group % 10 < 3;
    world.append(200_000);
    let start = world.now.mono;
    let known = (0..world.appended).filter(|seq| !bad(world.group(*seq))).count();
    while world.settled.len() < known {
        run_for(&mut world, 1_000, &bad, &refused);
        let minutes = (world.now.mono - start) / 60_000;
        assert!(minutes < 60, "{} of {known} known calls were settled", world.settled.len());
    }
    println!("the known calls were settled after {} s", (world.now.mono - start) / 1_000);
}

#[test]
fn many_calls_with_one_id_of_an_unknown_customer_delay_nobody() {
    let mut world = World::new(LatePolicy::Restamp);
    let is_bad = |seq: u64| seq % 4 == 3;
    let metas = (0..60_000).map(|seq| {
        let (group, id_hash) = if is_bad(seq) { (3, 7) } else { (4 + seq % 10, seq) };
        Meta { group, json_bytes: 700, id_hash, ..meta(seq, 0) }
    });
    world.unread.entry(0).or_default().extend(metas);
    world.handle(Input::Tick);
    while world.settled.len() < 45_000 {
        assert!(world.sent.len() < 100, "{} settled", world.settled.len());
        until_request(&mut world);
        let holds_bad = world.last().iter().any(|seq| is_bad(*seq));
        world.answer(if holds_bad { response(400, "") } else { ok() });
    }
    assert!(world.aside.iter().all(|(seq, _)| is_bad(*seq)));
}
