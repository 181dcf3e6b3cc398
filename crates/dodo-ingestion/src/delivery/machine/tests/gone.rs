//! Spools that are removed while a request with their records is under way.

use super::*;

const GONE: SpoolId = 1;

/// So many records of a spool that is to go, due at once.
fn begun(records: u64) -> World {
    let mut world = World::new(LatePolicy::Restamp);
    let metas = (0..records).map(|seq| Meta { id_hash: u64::MAX - seq, ..meta(seq, 0) });
    world.unread.entry(GONE).or_default().extend(metas);
    world.handle(Input::Available { spool: GONE, metas: Vec::new() });
    world.handle(Input::Tick);
    world
}

fn failing() -> Answer {
    response(500, "")
}

fn key_refused() -> Answer {
    response(401, "")
}

/// As often as makes the server's failures the records' fault.
const FAILED: [fn() -> Answer; 5] = [failing; 5];

#[test]
fn what_a_removed_spool_held_is_neither_sent_again_nor_set_aside() {
    type Case = (u64, &'static [fn() -> Answer], fn() -> Answer);
    let cases: [Case; 9] = [
        (1, &[], refused),
        (2, &[], refused),
        (2, &[refused], refused),
        (2, &[refused], key_refused),
        (1, &[], key_refused),
        (1, &[], || response(413, "")),
        (1, &FAILED, failing),
        (2, &FAILED, lost),
        (1, &[lost, refused], lost),
    ];
    for (case, (records, before, answer)) in cases.into_iter().enumerate() {
        let mut world = begun(records);
        for answer in before {
            world.answer(answer());
            until_request(&mut world);
        }
        let (requests, alarms) = (world.sent.len(), world.alarms.len());
        world.handle(Input::SpoolGone { spool: GONE });
        world.answer(answer());
        for _ in 0..20 {
            world.pass(10 * 60_000);
        }
        assert_eq!((world.sent.len(), world.aside.len()), (requests, 0), "case {case}");
        let told = &world.alarms[alarms..];
        assert!(!told.contains(&AlarmKind::DeadLettered), "case {case}: {told:?}");
    }
}

#[test]
fn who_was_refused_with_what_is_gone_is_not_blamed_for_it() {
    for answer in [refused, || response(413, ""), key_refused] {
        let mut world = begun(0);
        world.append(1);
        let metas = vec![Meta { id_hash: 9, ..meta(7, 0) }];
        world.unread.entry(GONE).or_default().extend(metas);
        world.handle(Input::Tick);
        assert_eq!(world.last().len(), 2);
        world.handle(Input::SpoolGone { spool: GONE });
        world.answer(answer());
        until_request(&mut world);
        assert_eq!((world.last(), world.aside.len()), (&[0][..], 0));
        world.answer(ok());
        assert_eq!(world.settled, [0]);
    }
}

#[test]
fn an_acknowledgement_counts_what_is_gone() {
    let mut world = begun(2);
    world.append(1);
    world.handle(Input::SpoolGone { spool: GONE });
    world.answer(response(200, r#"{"ingested_count":2}"#));
    assert_eq!(world.delivery.counts().retries, 0);
    until_request(&mut world);
    assert_eq!(world.last(), [0]);
    world.answer(ok());
    assert_eq!(world.settled, [0]);
}
