//! How far is read ahead, and from whom.

use std::collections::BTreeSet;

use super::*;
use crate::delivery::machine::reading::{OF_ALL, OF_ONE};

const SPOOLS: u32 = 200;

/// As many dead backlogs, each of so many records of so many bytes that are due after a while.
fn backlogs(records: u64, json_bytes: usize, delay_ms: u32) -> World {
    let mut world = World::new(LatePolicy::Restamp);
    for spool in 1..=SPOOLS {
        let first = u64::from(spool) << 32;
        let metas = (first..first + records).map(|seq| Meta { json_bytes, ..meta(seq, delay_ms) });
        world.unread.entry(spool).or_default().extend(metas);
    }
    for spool in 1..=SPOOLS {
        let mut actions = Vec::new();
        let metas = Vec::new();
        world.delivery.handle(Input::Available { spool, metas }, world.now, &mut actions);
        assert!(actions.is_empty());
    }
    world
}

fn read_ahead(world: &World) -> Amount {
    world.delivery.queues.values().map(Queue::amount).fold(Amount::default(), Amount::plus)
}

#[test]
fn what_is_read_ahead_is_bounded_however_many_spools_there_are() {
    for json_bytes in [200, 100_000] {
        let mut world = backlogs(5_000, json_bytes, 300_000);
        world.handle(Input::Tick);
        for _ in 0..50 {
            let most = OF_ALL.plus(OF_ONE);
            let Amount { records, bytes } = read_ahead(&world);
            assert!(
                records <= most.records && bytes <= most.bytes + json_bytes,
                "{records}, {bytes}"
            );
            let full = world.last().len() == 1_000 || world.last().len() * json_bytes > 800_000;
            assert!(full, "{} records of {json_bytes} bytes", world.last().len());
            world.answer(ok());
            until_request(&mut world);
        }
    }
}

#[test]
fn dead_backlogs_do_not_starve_the_living() {
    let mut world = backlogs(5_000, 200, 0);
    let mut waited = Vec::new();
    for second in 0..60 {
        world.append(3);
        let mut requests = 0;
        let last = 3 * second + 2;
        while !world.settled.contains(&last) {
            requests += 1;
            assert!(requests < 10, "{:?}", world.settled.iter().filter(|seq| **seq < 999).count());
            if world.delivery.under_way.is_some() {
                world.answer(ok());
            } else {
                wait_for_request(&mut world);
            }
        }
        waited.push(requests);
    }
    assert!(waited.iter().sum::<usize>() <= 5 * waited.len(), "{waited:?}");
}

#[test]
fn one_busy_spool_among_idle_ones_fills_requests() {
    let mut world = backlogs(0, 200, 0);
    world.append(10_000);
    while world.settled.len() < 10_000 {
        assert_eq!(world.last().len(), 1_000);
        world.answer(ok());
        if world.delivery.under_way.is_none() && world.settled.len() < 10_000 {
            wait_for_request(&mut world);
        }
    }
}

#[test]
fn each_spool_has_its_turn_also_with_records_larger_than_its_share() {
    let mut world = backlogs(20, 150_000, 0);
    world.handle(Input::Tick);
    let mut spools = BTreeSet::new();
    for _ in 0..2 * SPOOLS {
        spools.extend(world.last().iter().map(|seq| seq >> 32));
        world.answer(ok());
        until_request(&mut world);
    }
    assert_eq!(spools.len(), SPOOLS as usize);
}
