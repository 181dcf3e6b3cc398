//! Answers that say that the key or the address is wrong, which may be a firewall's that dislikes a call.

use super::*;

fn forbidden() -> Answer {
    response(403, "<html>Access denied</html>")
}

/// As firewalls and proxies have it.
const DENIALS: [fn() -> Answer; 3] = [forbidden, || response(406, "<html>"), || response(302, "")];

/// Answers requests by what they hold, until so many records are settled.
fn run(
    world: &mut World,
    settled: usize,
    denial: fn() -> Answer,
    denies: &dyn Fn(&World, &[u64]) -> bool,
) {
    while world.settled.len() < settled {
        assert!(world.sent.len() < 2_000, "{} settled", world.settled.len());
        until_request(world);
        let denied = denies(world, world.last());
        world.answer(if denied { denial() } else { ok() });
    }
}

/// Has the key acknowledged.
fn works() -> World {
    let mut world = World::new(LatePolicy::Restamp);
    world.append(100);
    run(&mut world, 100, forbidden, &|_, _| false);
    world
}

fn is_held(world: &World) -> bool {
    let held = |kind: &AlarmKind| matches!(kind, AlarmKind::Authentication | AlarmKind::Address);
    world.alarms.iter().any(held)
}

#[test]
fn a_call_that_a_firewall_dislikes_costs_only_itself() {
    for denial in DENIALS {
        let mut world = works();
        let denies = |_: &World, seqs: &[u64]| seqs.contains(&150);
        world.append(500);
        let from = world.now.mono;
        run(&mut world, 599, denial, &denies);
        assert!(world.now.mono - from < 60_000 && world.sent.len() < 60, "{}", world.sent.len());
        // It is kept, and nobody waits when it is tried again.
        for hour in 1..10 {
            world.append(100);
            let from = world.now.mono;
            // Of its customer one is tried at a time until one is taken.
            run(&mut world, 599 + 100 * hour, denial, &denies);
            assert!(world.now.mono - from < 60_000);
            world.pass(3_600_000);
        }
        assert!(!is_held(&world) && world.aside.is_empty(), "{:?}", world.alarms);
        assert!(world.alarms.contains(&AlarmKind::Parked));
        let before = world.settled.len();
        run(&mut world, before + 1, denial, &|_, _| false);
        assert!(world.settled.contains(&150));
    }
}

#[test]
fn a_call_that_a_firewall_dislikes_costs_only_itself_also_for_a_new_sender_and_a_sole_customer() {
    for denial in DENIALS {
        for groups in [1, 10] {
            let mut world = World::new(LatePolicy::Restamp);
            world.groups = groups;
            world.append(500);
            run(&mut world, 499, denial, &|_, seqs| seqs.contains(&50));
            assert!(!is_held(&world) && world.aside.is_empty(), "{:?}", world.alarms);
        }
    }
}

#[test]
fn a_firewall_that_dislikes_large_requests_holds_up_nothing() {
    let mut world = works();
    let denies = |_: &World, seqs: &[u64]| seqs.len() > 31;
    world.append(3_000);
    run(&mut world, 3_100, forbidden, &denies);
    assert!(!is_held(&world) && world.aside.is_empty(), "{:?}", world.alarms);
    assert!(!world.alarms.contains(&AlarmKind::Parked));
}

#[test]
fn a_relay_that_takes_the_calls_of_one_customer_bills_those() {
    let mut world = World::new(LatePolicy::Restamp);
    world.groups = 3;
    let denies = |world: &World, seqs: &[u64]| seqs.iter().any(|seq| world.group(*seq) != 1);
    for round in 1..20 {
        world.append(30);
        let from = world.now.mono;
        run(&mut world, 10 * round, forbidden, &denies);
        let bound = if round == 2 { 5 * 60_000 } else { 61_000 };
        assert!(round == 1 || world.now.mono - from <= bound, "{round}");
    }
    assert!(world.settled.iter().all(|seq| world.group(*seq) == 1) && world.aside.is_empty());
    // The others' calls are taken with another key, at once.
    world.handle(Input::KeyChanged);
    let from = world.now.mono;
    run(&mut world, 570, forbidden, &|_, _| false);
    assert!(world.now.mono - from < 5 * 60_000, "{}", world.now.mono - from);
}

#[test]
fn where_everything_is_denied_one_call_a_minute_is_tried() {
    for denial in DENIALS {
        let mut world = works();
        let before = world.sent.len();
        world.append(3_000);
        let mut times = Vec::new();
        for _ in 0..100 {
            until_request(&mut world);
            times.push(world.now.mono);
            world.answer(denial());
            world.append(10);
        }
        assert_eq!(world.sent[before].1.len(), 1_000);
        // Three controls show that it is everything.
        assert!(world.sent[before + 1..].iter().all(|(_, seqs)| seqs.len() == 1));
        assert!(times.windows(2).skip(3).all(|pair| pair[1] - pair[0] == HOLD_MS), "{times:?}");
        assert!(is_held(&world) && !world.alarms.contains(&AlarmKind::Parked));
        assert!(world.delivery.trouble().is_some());
        let (from, appended) = (world.now.mono, world.appended as usize);
        run(&mut world, appended, denial, &|_, _| false);
        assert!(world.now.mono - from < 2 * HOLD_MS, "{}", world.now.mono - from);
        assert_eq!((world.aside.len(), world.delivery.trouble()), (0, None));
    }
}

#[test]
fn of_a_single_call_nothing_tells_the_key_from_the_call_until_another_is_taken() {
    let mut world = works();
    world.append(1);
    until_request(&mut world);
    world.answer(forbidden());
    assert_eq!(world.delivery.trouble(), Some(Trouble::KeyRefused { status: 403 }));
    let held = world.now.mono;
    wait_for_request(&mut world);
    assert_eq!((world.now.mono, world.last()), (held + HOLD_MS, &[100][..]));
    world.answer(forbidden());
    world.append(1);
    let denies = |_: &World, seqs: &[u64]| seqs.contains(&100);
    run(&mut world, 101, forbidden, &denies);
    assert_eq!(world.delivery.trouble(), None);
    let told = world.alarms.len();
    for n in 0..100 {
        world.append(1);
        run(&mut world, 102 + n, forbidden, &denies);
        world.pass(600_000);
    }
    assert!(!world.alarms[told..].contains(&AlarmKind::Authentication), "{:?}", world.alarms);
}

#[test]
fn a_new_key_is_tried_at_once_and_takes_what_the_old_one_did_not() {
    let mut world = works();
    world.append(2_000);
    for _ in 0..5 {
        until_request(&mut world);
        world.answer(forbidden());
    }
    let before = world.sent.len();
    world.handle(Input::KeyChanged);
    assert_eq!((world.sent.len(), world.delivery.trouble()), (before + 1, None));
    run(&mut world, 2_100, forbidden, &|_, _| false);
    assert!(world.sent.len() < before + 10, "{}", world.sent.len() - before);
}

#[test]
fn who_was_found_to_be_refused_says_nothing_of_the_key_when_nobody_else_is_left() {
    let mut world = World::new(LatePolicy::Restamp);
    let denies = |world: &World, seqs: &[u64]| seqs.iter().any(|seq| world.group(*seq) == 3);
    world.append(1_000);
    run(&mut world, 900, forbidden, &denies);
    let (before, from) = (world.sent.len(), world.now.mono);
    while world.now.mono < from + 10 * 3_600_000 {
        until_request(&mut world);
        world.answer(forbidden());
    }
    assert!(!is_held(&world) && world.aside.is_empty(), "{:?}", world.alarms);
    assert_eq!(world.delivery.trouble(), None);
    assert!(world.sent.len() - before < 100, "{}", world.sent.len() - before);
}

#[test]
fn a_refusal_of_what_a_request_holds_shows_that_the_key_is_right() {
    let mut world = World::new(LatePolicy::Restamp);
    world.append(1);
    until_request(&mut world);
    world.answer(forbidden());
    assert_eq!(world.delivery.trouble(), Some(Trouble::KeyRefused { status: 403 }));
    wait_for_request(&mut world);
    world.answer(refused());
    assert_eq!((world.delivery.trouble(), world.aside.len()), (None, 1));
}

#[test]
fn while_everything_is_denied_a_look_up_shows_whether_it_is_the_key() {
    let mut world = World::new(LatePolicy::Restamp);
    world.append(1);
    until_request(&mut world);
    world.answer(forbidden());
    let first = Now { wall: WALL - 30 * 3_600_000, ..world.now };
    let owed = Meta { maybe_sent: Some(first), group: 1, ..meta(7, 0) };
    world.unread.entry(1).or_default().push_back(owed);
    world.attempted.insert(1, 8);
    world.handle(Input::Available { spool: 1, metas: Vec::new() });
    wait_for_request(&mut world);
    assert_eq!(world.looked_up, [7]);
    world.answer(response(404, r#"{"code":"NOT_FOUND","message":"no"}"#));
    assert_eq!((world.last().len(), world.delivery.trouble()), (1, None));
}

#[test]
fn the_next_that_is_tried_while_everything_is_denied_is_another_customer() {
    for groups in 2..6 {
        let mut world = World::new(LatePolicy::Restamp);
        world.groups = groups;
        world.append(groups * 2);
        for _ in 0..20 {
            until_request(&mut world);
            world.answer(forbidden());
            if is_held(&world) {
                break;
            }
        }
        assert!(is_held(&world));
        let last = world.group(world.last()[0]);
        wait_for_request(&mut world);
        assert_eq!(world.last().len(), 1);
        assert_ne!(world.group(world.last()[0]), last);
    }
}
