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
        let first = |later| Some(Now { wall: WALL - 23 * 3_600_000 + later, ..world.now });
        let old = Meta { maybe_sent: first(0), id_hash, ..meta(0, 0) };
        let young = Meta { maybe_sent: first(60_000), ..meta(1, 0) };
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
    let waited = world.now.mono - failed_at;
    assert!(waited >= 120_000);
    // That nobody answers is not its fault: the wait stays, and nobody is told.
    let told = world.alarms.len();
    world.answer(lost());
    let lost_at = world.now.mono;
    wait_for_request(&mut world);
    let again = world.now.mono - lost_at;
    assert!((waited..2 * waited).contains(&again), "{again} after {waited}");
    assert_eq!((world.last(), world.alarms.len()), (&[77][..], told));
    world.answer(ok());
    assert_eq!(world.settled.len(), 600);
}

#[test]
fn what_never_gets_a_right_answer_is_parked_and_the_others_pass() {
    let again = || with_header(400, |headers| headers.should_retry = Some("true".into()));
    let conflict = || response(409, "");
    let slow = || response(408, "");
    let portal = || response(200, "<html>");
    let answers: [&dyn Fn() -> Answer; 5] = [&lost, &conflict, &slow, &again, &portal];
    for answer in answers {
        let mut world = World::new(LatePolicy::Restamp);
        world.append(500);
        let is_parked = |world: &World| world.alarms.contains(&AlarmKind::Parked);
        while !is_parked(&world) || world.settled.len() + 1 < world.appended as usize {
            assert!(world.sent.len() < 150, "{} settled", world.settled.len());
            // Others come and pass.
            if !is_parked(&world) {
                world.append(1);
            }
            until_request(&mut world);
            let poisoned = world.last().contains(&77);
            world.answer(if poisoned { answer() } else { ok() });
        }
        assert!(world.aside.is_empty() && !world.settled.contains(&77));
        // Others pass, so it is at fault whenever it is tried: it waits longer, and nobody else does.
        let mut waited = Vec::new();
        for _ in 0..3 {
            world.append(1);
            until_request(&mut world);
            world.answer(ok());
            let passed_at = world.now.mono;
            wait_for_request(&mut world);
            assert_eq!(world.last(), [77]);
            waited.push(world.now.mono - passed_at);
            world.answer(answer());
            world.append(1_000);
            assert_eq!(world.last().len(), 1_000, "at once");
            world.answer(ok());
        }
        assert!(waited[2] > waited[1] && waited[1] > waited[0], "{waited:?}");
    }
}

#[test]
fn a_server_that_fails_on_one_call_and_asks_to_wait_is_left_alone() {
    let busy = || with_header(503, |headers| headers.retry_after = Some("30".into()));
    let never = || with_header(500, |headers| headers.should_retry = Some("false".into()));
    let answers: [(&dyn Fn() -> Answer, u64); 2] = [(&busy, 30_000), (&never, 0)];
    for (answer, waits) in answers {
        let mut world = World::new(LatePolicy::Restamp);
        world.append(10);
        while !world.alarms.contains(&AlarmKind::Parked) || world.settled.len() < 9 {
            until_request(&mut world);
            let poisoned = world.last().contains(&7);
            world.answer(if poisoned { failing() } else { ok() });
        }
        until_request(&mut world);
        assert_eq!(world.last(), [7]);
        let (told, tried_at) = (world.alarms.len(), world.now.mono);
        world.answer(answer());
        world.append(1_000);
        until_request(&mut world);
        assert_eq!((world.last().len(), world.now.mono - tried_at), (1_000, waits));
        assert_eq!(world.alarms[told..], [AlarmKind::Parked]);
        world.answer(ok());
    }
}

#[test]
fn a_server_that_asks_to_wait_is_left_alone_whatever_it_says_beside() {
    for status in [302, 400, 401, 403, 404, 413, 422, 429, 500, 503] {
        let mut world = World::new(LatePolicy::Restamp);
        world.append(10);
        until_request(&mut world);
        let asked_at = world.now.mono;
        world.answer(with_header(status, |headers| headers.retry_after = Some("300".into())));
        until_request(&mut world);
        let waited = world.now.mono - asked_at;
        assert!(waited >= 300_000, "{status}: {waited}");
    }
}

#[test]
fn an_outage_of_the_server_is_nobodys_fault() {
    for answer in [failing, lost] {
        let mut world = World::new(LatePolicy::Restamp);
        world.append(3_000);
        for _ in 0..60 {
            world.answer(answer());
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
}

#[test]
fn a_call_alone_is_not_parked_because_nobody_answers() {
    let mut world = World::new(LatePolicy::Restamp);
    world.append(1);
    for _ in 0..40 {
        let before = world.now.mono;
        wait_for_request(&mut world);
        assert!(world.now.mono - before <= 60_000, "it is tried as often as ever");
        world.answer(lost());
    }
    assert!(!world.alarms.contains(&AlarmKind::Parked));
    wait_for_request(&mut world);
    world.answer(ok());
    assert_eq!(world.settled, [0]);
}

#[test]
fn batches_that_each_hold_a_call_without_an_answer_do_not_hold_each_other_up() {
    let mut world = World::new(LatePolicy::Restamp);
    world.append(3_000);
    while world.settled.len() < 2_997 {
        assert!(world.sent.len() < 1_500, "{} settled", world.settled.len());
        until_request(&mut world);
        let poisoned = world.last().iter().any(|seq| seq % 1_000 == 77);
        world.answer(if poisoned { lost() } else { ok() });
    }
}

#[test]
fn a_network_that_loses_most_requests_does_not_scatter_batches() {
    let mut world = World::new(LatePolicy::Restamp);
    let mut random = fastrand::Rng::with_seed(1);
    world.append(100_000);
    while world.settled.len() < 100_000 {
        assert!(world.sent.len() < 600, "{} settled", world.settled.len());
        until_request(&mut world);
        world.answer(if random.u8(..10) < 6 { lost() } else { ok() });
    }
    assert!(!world.alarms.contains(&AlarmKind::Parked));
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
