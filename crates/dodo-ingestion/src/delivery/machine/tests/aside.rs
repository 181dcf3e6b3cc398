//! What may be billed, and what the server fails on.

use super::*;

/// A record that went unanswered and then was refused: about to be set aside.
fn refused_after_silence() -> World {
    let mut world = World::new(LatePolicy::Restamp);
    world.append(1);
    world.pass(1_000);
    world.answer(lost());
    wait_for_request(&mut world);
    world.answer(refused());
    assert_eq!((world.aside.len(), world.looked_up.len()), (0, 0));
    let refused_at = world.now.mono;
    wait_for_request(&mut world);
    assert_eq!(world.looked_up, [0]);
    assert!(world.now.mono >= refused_at + 60_000, "a silent server may still be at work");
    world
}

#[test]
fn what_may_be_billed_is_looked_up_before_it_is_set_aside() {
    let mut world = refused_after_silence();
    world.answer(unknown());
    let (seq, cause) = &world.aside[0];
    assert_eq!((*seq, cause.uncertain, cause.attempts), (0, false, 2));

    let mut world = refused_after_silence();
    world.answer(response(200, r#"{"event_id":"another"}"#));
    assert_eq!((world.settled.len(), world.aside.len()), (0, 0), "that says nothing of ours");
}

#[test]
fn without_an_answer_it_is_set_aside_as_uncertain() {
    let mut world = refused_after_silence();
    for _ in 0..2 {
        world.answer(lost());
        assert!(world.aside.is_empty());
        wait_for_request(&mut world);
    }
    world.answer(lost());
    assert_eq!((world.looked_up.len(), world.aside[0].1.uncertain), (3, true));
}

#[test]
fn what_went_unanswered_a_day_ago_is_looked_up_before_it_is_sent_again() {
    for (answer, settled) in [(None, 1), (Some(unknown()), 0)] {
        let mut world = World::new(LatePolicy::Restamp);
        let id_hash = crate::delivery::id_hash(b"mine");
        let first = WALL - 23 * 3_600_000;
        let old = Meta { maybe_sent: Some(first), id_hash, ..meta(0, 0) };
        let young = Meta { maybe_sent: Some(first + 60_000), ..meta(1, 0) };
        world.attempted.insert(0, 2);
        world.handle(Input::Available { spool: 0, metas: vec![old, young] });
        assert_eq!(world.last(), [1]);
        world.answer(ok());
        assert_eq!(world.looked_up, [0]);
        world.answer(answer.unwrap_or_else(|| response(200, r#"{"event_id":"mine"}"#)));
        assert_eq!(world.settled.len(), 1 + settled);
        if settled == 0 {
            assert_eq!((world.sent.len(), world.last()), (3, &[0][..]), "it is sent now");
        }
    }
}

fn failing() -> Answer {
    response(500, "oops")
}

#[test]
fn what_the_server_fails_on_is_parked_and_the_others_pass() {
    let mut world = World::new(LatePolicy::Restamp);
    world.append(500);
    for _ in 0..600 {
        if world.delivery.under_way.is_none() {
            let Some(wake_at) = world.delivery.wake_at() else { break };
            world.pass(wake_at.saturating_sub(world.now.mono).max(1));
            continue;
        }
        let poisoned = world.last().contains(&77);
        world.answer(if poisoned { failing() } else { ok() });
        if world.settled.len() == 499 && world.alarms.contains(&AlarmKind::Parked) {
            break;
        }
    }
    assert_eq!((world.settled.len(), world.aside.len()), (499, 0));
    assert!(world.sent.len() < 40, "{}", world.sent.len());
    // It is tried alone, ever more rarely, and delays nobody.
    let parked_at = world.now.mono;
    world.append(100);
    world.pass(1_000);
    assert_eq!(world.last().len(), 100);
    world.answer(ok());
    wait_for_request(&mut world);
    assert_eq!((world.last(), world.now.mono >= parked_at + 60_000), (&[77][..], true));
    world.answer(failing());
    let failed_at = world.now.mono;
    wait_for_request(&mut world);
    assert!(world.now.mono >= failed_at + 120_000);
    // That nobody answers is not its fault: the wait stays, and nobody is told.
    let told = world.alarms.len();
    world.answer(lost());
    let lost_at = world.now.mono;
    wait_for_request(&mut world);
    let waited = world.now.mono - lost_at;
    assert!((120_000..240_000).contains(&waited), "{waited}");
    assert_eq!((world.last(), world.alarms.len()), (&[77][..], told));
    world.answer(ok());
    assert_eq!(world.settled.len(), 600);
}

#[test]
fn an_outage_of_the_server_is_nobodys_fault() {
    let mut world = World::new(LatePolicy::Restamp);
    world.append(3_000);
    for _ in 0..60 {
        world.answer(failing());
        wait_for_request(&mut world);
    }
    assert!(!world.alarms.contains(&AlarmKind::Parked));
    let before = world.sent.len();
    while world.settled.len() < 3_000 {
        world.answer(ok());
        if world.delivery.under_way.is_none() && world.settled.len() < 3_000 {
            wait_for_request(&mut world);
        }
    }
    assert!(world.sent.len() - before <= 16, "{}", world.sent.len() - before);
}

#[test]
fn where_the_server_fails_on_all_that_is_left_each_culprit_is_found() {
    let mut world = World::new(LatePolicy::Restamp);
    world.append(64);
    world.pass(1_000);
    let poisoned = |world: &World| world.last().iter().any(|seq| seq % 8 == 0);
    for _ in 0..2_000 {
        if world.settled.len() == 56 && world.alarms.contains(&AlarmKind::Parked) {
            return;
        }
        world.answer(if poisoned(&world) { failing() } else { ok() });
        if world.delivery.under_way.is_none() {
            wait_for_request(&mut world);
        }
    }
    panic!("{} settled", world.settled.len());
}
