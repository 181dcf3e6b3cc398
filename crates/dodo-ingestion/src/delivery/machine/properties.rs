//! What holds of telling bad records apart, whichever they are.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::tests::{World, ok, refused};
use crate::config::LatePolicy;
use crate::validate::limits::EVENTS_PER_REQUEST;

/// Answers every request by the records that it holds, until each is settled or set aside.
fn deliver(world: &mut World, records: u64, bad: &BTreeSet<u64>) {
    world.append(records);
    let mut answered = 0;
    while world.settled.len() + world.aside.len() < records as usize {
        if world.sent.len() == answered {
            let wake_at = world.delivery.wake_at().expect("something to wait for");
            world.pass(wake_at.saturating_sub(world.now.mono).max(1));
            continue;
        }
        answered = world.sent.len();
        assert!(answered < 10_000, "no progress");
        let holds_bad = world.last().iter().any(|seq| bad.contains(seq));
        world.answer(if holds_bad { refused() } else { ok() });
    }
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
