//! Customers on whose every call the server fails.

use super::bad_customers::{How, until_settled};
use super::*;

#[test]
fn customers_the_server_fails_on_hardly_slow_the_others() {
    let failing = || response(500, "oops");
    let conflict = || response(409, "");
    let ways: [(How<'_>, u64, f64); 6] = [
        (&failing, 1_000, 1.1),
        (&failing, 200, 1.1),
        (&failing, 50, 1.5),
        (&conflict, 200, 1.1),
        (&lost, 1_000, 1.1),
        (&lost, 200, 1.1),
    ];
    let (without, _) = until_settled(&|_| false, &failing);
    for (how, every, at_most) in ways {
        let (with, world) = until_settled(&|group| group % every == 7, how);
        println!("one of {every}: {with} s, {} requests; {without} s without", world.sent.len());
        assert!(world.aside.is_empty());
        assert!(with < without * at_most, "one of {every}: {with} s against {without} s");
    }
}

/// Answers requests until so many records are settled.
fn run(world: &mut World, bad: &dyn Fn(&World, u64) -> bool, settled: usize) {
    while world.settled.len() < settled {
        assert!(world.sent.len() < 3_000, "{} settled", world.settled.len());
        until_request(world);
        let holds_bad = world.last().iter().any(|seq| bad(world, *seq));
        world.answer(if holds_bad { response(500, "oops") } else { ok() });
    }
}

#[test]
fn a_customer_the_server_fails_on_costs_a_few_requests_an_hour_until_it_does_not() {
    let mut world = World::new(LatePolicy::Restamp);
    let of_three = |world: &World, seq: u64| world.group(seq) == 3;
    world.append(1_000);
    run(&mut world, &of_three, 900);
    let (before, from) = (world.sent.len(), world.now.mono);
    while world.now.mono < from + 10 * 3_600_000 {
        let done = world.settled.len();
        world.append(100);
        run(&mut world, &of_three, done + 90);
        world.pass(600_000);
    }
    let of_others = 60;
    let (spent, hours) = (world.sent.len() - before - of_others, 10);
    assert!(spent < 10 * hours, "{spent} requests in {hours} hours");
    assert!(world.settled.iter().all(|seq| !of_three(&world, *seq)) && world.aside.is_empty());

    let (appended, from) = (world.appended as usize, world.now.mono);
    while world.settled.len() < appended {
        until_request(&mut world);
        world.answer(ok());
    }
    assert!(world.now.mono - from <= 3_600_000, "{}", world.now.mono - from); // one is parked
    assert!(world.delivery.failing_groups.is_empty());
}

#[test]
fn of_a_customer_the_server_fails_on_now_and_then_all_other_calls_are_billed() {
    let mut world = World::new(LatePolicy::Restamp);
    let bad = |_: &World, seq: u64| seq % 10 == 3 && seq.is_multiple_of(7);
    world.append(3_000);
    let good = (0..3_000).filter(|seq| !bad(&world, *seq)).count();
    run(&mut world, &bad, good);
    assert!(world.aside.is_empty());
    world.append(1_000);
    let good = (0..4_000).filter(|seq| !bad(&world, *seq)).count();
    run(&mut world, &bad, good);
}

#[test]
fn after_an_outage_of_hours_a_sole_customer_is_billed_at_once() {
    let mut world = World::new(LatePolicy::Restamp);
    world.groups = 1;
    world.append(2_000);
    let from = world.now.mono;
    while world.now.mono < from + 10 * 3_600_000 {
        until_request(&mut world);
        world.answer(response(500, "oops"));
    }
    let over = world.now.mono;
    while world.settled.len() < 2_000 {
        until_request(&mut world);
        world.answer(ok());
    }
    assert!(world.now.mono - over <= 5 * 60_000, "{}", world.now.mono - over);
}

#[test]
fn where_nothing_but_suspects_is_left_a_customer_the_server_fails_on_holds_them_up_for_minutes() {
    for groups in [2, 3, 5, 8] {
        let mut world = World::new(LatePolicy::Restamp);
        world.groups = groups;
        world.append(500);
        let is_bad = |world: &World, seq: u64| world.group(seq) == 0;
        let good = (0..500).filter(|seq| !is_bad(&world, *seq)).count();
        let from = world.now.mono;
        while world.settled.len() < good {
            until_request(&mut world);
            let bad = world.last().iter().any(|seq| is_bad(&world, *seq));
            let large = world.last().len() > 7;
            world.answer(match (large, bad) {
                (true, _) => response(413, ""),
                (_, true) => response(500, "oops"),
                _ => ok(),
            });
        }
        assert!(world.now.mono - from < 20 * 60_000, "{} ms", world.now.mono - from);
        assert!(world.aside.is_empty());
    }
}
