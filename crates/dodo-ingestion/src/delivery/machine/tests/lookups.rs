//! Look-ups that get no answer.

use super::*;
use crate::delivery::id_hash;

/// Two records that went unanswered a day ago: they are to be looked up before they are sent again.
fn a_day_after_silence() -> World {
    let mut world = World::new(LatePolicy::Restamp);
    let first = WALL - 24 * 3_600_000;
    let old = Meta { maybe_sent: Some(Now { wall: first, ..world.now }), ..meta(0, 0) };
    world.attempted.insert(0, 1);
    world.appended = 1;
    world.handle(Input::Available { spool: 0, metas: vec![old] });
    assert_eq!(world.looked_up, [0]);
    world
}

/// Appends a call each second, has it acknowledged, and answers look-ups so, for ten minutes.
fn ten_minutes(world: &mut World, answer: impl Fn() -> Answer) {
    for _ in 0..600 {
        world.append(1);
        if world.delivery.under_way.is_some() {
            world.answer(if world.last() == [0] { answer() } else { ok() });
        }
        world.pass(1_000);
    }
}

#[test]
fn a_relay_that_takes_no_lookups_holds_up_nothing() {
    let not_allowed = || response(405, "");
    let forbidden = || response(403, "");
    let not_here = || response(404, "<html>");
    let malformed = || response(422, r#"{"code":"INVALID","message":"no id"}"#);
    let portal = || response(200, "<html>");
    let broken = || response(500, "");
    let answers: [&dyn Fn() -> Answer; 6] =
        [&not_allowed, &forbidden, &not_here, &malformed, &portal, &broken];
    for answer in answers {
        let mut world = a_day_after_silence();
        ten_minutes(&mut world, answer);
        let (seq, cause) = &world.aside[0];
        assert_eq!((*seq, cause.uncertain, cause.kind), (0, true, ErrorKind::Rejected));
        assert!(world.looked_up.len() <= 4, "{:?}", world.looked_up);
        assert!(world.settled.len() > 500, "{} settled", world.settled.len());
        // Only the first may be for a wrong key or address: nothing was acknowledged before it.
        let told = world.alarms.iter().filter(|kind| **kind != AlarmKind::DeadLettered).count();
        assert!(told <= 1, "{:?}", world.alarms);
    }
}

#[test]
fn a_key_that_is_refused_sets_nothing_aside() {
    let mut world = a_day_after_silence();
    for _ in 0..20 {
        world.answer(response(401, ""));
        wait_for_request(&mut world);
    }
    assert!(world.aside.is_empty());
    assert_eq!(world.looked_up.len(), 21);
}

#[test]
fn a_new_key_is_tried_at_once_for_a_look_up_too() {
    let mut world = a_day_after_silence();
    world.handle(Input::KeyChanged);
    world.answer(response(403, ""));
    assert_eq!((world.looked_up.len(), world.delivery.trouble()), (2, None));
}

#[test]
fn an_outage_sets_aside_nothing_that_can_be_sent_again() {
    let mut world = a_day_after_silence();
    ten_minutes(&mut world, lost);
    assert!(world.aside.is_empty() && world.settled.len() > 400, "{}", world.settled.len());
    until_request(&mut world);
    while world.last() != [0] {
        world.answer(ok());
        until_request(&mut world);
    }
    world.answer(unknown());
    until_request(&mut world);
    assert_eq!(world.last(), [0]);
    world.answer(ok());
    assert!(world.settled.contains(&0), "it is sent again");
}

#[test]
fn other_stamps_are_no_reason_to_send_again_what_may_be_forgotten() {
    let mut world = World::new(LatePolicy::Restamp);
    let old =
        Meta { maybe_sent: Some(Now { wall: WALL - 22 * 3_600_000, ..world.now }), ..meta(0, 0) };
    world.attempted.insert(0, 1);
    world.handle(Input::Available { spool: 0, metas: vec![old] });
    assert_eq!((world.sent.len(), world.looked_up.len()), (1, 0));
    // The machine slept before the answer was read: the stamps were too old.
    world.now.wall += 2 * 3_600_000;
    world.answer(refused());
    until_request(&mut world);
    assert_eq!(world.looked_up, [0]);
}

#[test]
fn what_is_owed_to_customers_the_server_fails_on_is_looked_up_last() {
    const CALLS: u64 = 200;
    let mut world = World::new(LatePolicy::Restamp);
    let first = Now { wall: WALL - 24 * 3_600_000, ..world.now };
    let of_three = |world: &World, seq: u64| world.group(seq) == 3;
    let metas: Vec<Meta> = (0..CALLS)
        .map(|seq| Meta { maybe_sent: Some(first), group: world.group(seq), ..meta(seq, 0) })
        .collect();
    world.attempted.insert(0, CALLS);
    world.appended = CALLS;
    world.handle(Input::Available { spool: 0, metas });
    let others = (0..CALLS).filter(|seq| !of_three(&world, *seq)).count();
    let mut looked_up = 0;
    while world.settled.len() < others {
        until_request(&mut world);
        let is_lookup = world.looked_up() > looked_up;
        looked_up = world.looked_up();
        let fails = world.last().iter().any(|seq| of_three(&world, *seq));
        world.answer(match (is_lookup, fails) {
            (true, _) => unknown(),
            (false, true) => response(500, "oops"),
            (false, false) => ok(),
        });
    }
    let of_three = world.looked_up.iter().filter(|seq| of_three(&world, **seq)).count();
    assert!(of_three <= 5, "{of_three} of {} look-ups", world.looked_up());
}

const OWED: u64 = 60_000;

/// More than may wait elsewhere than in queues, of a sender that is dead, went unanswered a day ago.
fn a_day_is_owed() -> World {
    let mut world = World::new(LatePolicy::Restamp);
    let first = Now { wall: WALL - 30 * 3_600_000, ..world.now };
    let old = (0..OWED).map(|seq| {
        let seq = 1 << 32 | seq;
        Meta {
            maybe_sent: Some(first),
            id_hash: id_hash(seq.to_string().as_bytes()),
            ..meta(seq, 0)
        }
    });
    world.unread.entry(1).or_default().extend(old);
    world.attempted.insert(1, 1 << 32 | OWED);
    world.handle(Input::Available { spool: 1, metas: Vec::new() });
    world
}

/// Answers what is sent within a second, each request after 50 ms.
fn a_second(world: &mut World) {
    let end = world.now.mono + 1_000;
    loop {
        let next = match world.delivery.under_way {
            Some(_) => Some(world.now.mono + 50),
            None => world.delivery.wake_at(),
        };
        let Some(next) = next.filter(|next| *next < end) else { break };
        world.pass(next.saturating_sub(world.now.mono).max(1));
        if world.delivery.under_way.is_some() {
            let known = format!("{{\"event_id\":\"{}\"}}", world.last()[0]);
            let is_lookup = world.looked_up.last() == world.last().first();
            world.answer(if is_lookup { response(200, &known) } else { ok() });
        }
    }
    world.pass(end.saturating_sub(world.now.mono));
}

#[test]
fn a_day_that_is_owed_look_ups_does_not_hold_up_what_is_accepted_now() {
    for calls in [40, 1_300] {
        let mut world = a_day_is_owed();
        for _ in 0..180 {
            world.append(calls);
            a_second(&mut world);
        }
        let billed = world.settled.iter().filter(|seq| **seq < 1 << 32).count() as u64;
        let behind = world.appended - billed;
        assert!(behind <= 30 * calls, "{behind} wait, of {calls} a second");
        assert!(world.looked_up() > 20, "{} look-ups", world.looked_up());
    }
}
