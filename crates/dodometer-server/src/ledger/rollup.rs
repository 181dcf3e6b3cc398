//! Calls rolled up by time: how many, how large and how slow, for each combination of customer,
//! event name, endpoint, method, status and the meters that counted them.
//!
//! Invariants: every call is in exactly one cell. A cell lies in a bucket of time, and buckets widen
//! with age: 5 seconds, a minute, half an hour, half a day, thirty days. Each width is kept
//! for a little longer than the period that is drawn with it, then folded into the next, so that the
//! number of buckets grows only with the months. There are at most [`MOST_CELLS`] cells, and one more
//! for each bucket, event name and status: while that is reached, what would make a new one is counted as
//! [`Symbol::OTHER`]. A cell takes about 180 bytes, so the bound is about 90 MB.
//!
//! Time is what it is told. A call from the future counts as of now.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use super::names::Symbol;
use crate::latency::Latency;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The widths of buckets, and for how long each is kept, in seconds. Each width is a multiple of the
/// one before.
pub(super) const TIERS: [(i64, i64); 5] = [
    (5, 6 * MINUTE),
    (MINUTE, 65 * MINUTE),
    (30 * MINUTE, 25 * HOUR),
    (12 * HOUR, 31 * DAY),
    (30 * DAY, i64::MAX),
];

/// See above.
pub(super) const MOST_CELLS: usize = 500_000;

/// What the calls of a cell have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) customer: Symbol,
    pub(super) event_name: Symbol,
    pub(super) endpoint: Symbol,
    pub(super) method: Symbol,
    pub(super) status: Option<u16>,
    /// The number of a set of meters.
    pub(super) counted_by: u32,
}

impl Key {
    /// The key of what there is no room to tell apart.
    fn other(self) -> Self {
        let other = Symbol::OTHER;
        Self { customer: other, endpoint: other, method: other, ..self }
    }
}

/// Some calls.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Cell {
    pub(super) calls: u64,
    pub(super) bytes: u64,
    pub(super) latency: Latency,
}

impl Cell {
    fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.latency.merge(&other.latency);
    }
}

type Bucket = HashMap<Key, Cell>;

pub(super) struct Rollup {
    /// Buckets by the second in which they begin, for each of [`TIERS`].
    tiers: [BTreeMap<i64, Bucket>; TIERS.len()],
    cells: usize,
    most_cells: usize,
    now: i64,
}

impl Rollup {
    pub(super) fn new(now: i64) -> Self {
        Self { tiers: Default::default(), cells: 0, most_cells: MOST_CELLS, now }
    }

    /// Tells what time it is: folds what is old enough.
    pub(super) fn advance(&mut self, now: i64) {
        self.now = now;
        for tier in 0..TIERS.len() - 1 {
            let oldest = now.saturating_sub(TIERS[tier].1);
            while let Some(bucket) = self.tiers[tier].first_entry()
                && *bucket.key() < oldest
            {
                let (start, bucket) = bucket.remove_entry();
                self.cells -= bucket.len();
                let wider = start_of(start, TIERS[tier + 1].0);
                for (key, cell) in bucket {
                    self.cell(tier + 1, wider, key).merge(&cell);
                }
            }
        }
    }

    /// Counts a call that took place at `at`.
    pub(super) fn record(&mut self, at: i64, key: Key, bytes: u64, time: Option<f64>) {
        let at = at.min(self.now);
        let fits =
            |&(width, keep): &(i64, i64)| start_of(at, width) >= self.now.saturating_sub(keep);
        let tier = TIERS.iter().position(fits).unwrap_or(TIERS.len() - 1);
        let cell = self.cell(tier, start_of(at, TIERS[tier].0), key);
        cell.calls += 1;
        cell.bytes = cell.bytes.saturating_add(bytes);
        if let Some(time) = time {
            cell.latency.record(time);
        }
    }

    fn cell(&mut self, tier: usize, start: i64, key: Key) -> &mut Cell {
        let full = self.cells >= self.most_cells;
        let bucket = self.tiers[tier].entry(start).or_default();
        let key = if full && !bucket.contains_key(&key) { key.other() } else { key };
        match bucket.entry(key) {
            Entry::Occupied(cell) => cell.into_mut(),
            Entry::Vacant(room) => {
                self.cells += 1;
                room.insert(Cell::default())
            }
        }
    }

    /// The cells of all buckets that begin at `from` or later, and when their bucket begins.
    pub(super) fn since(&self, from: i64) -> impl Iterator<Item = (i64, &Key, &Cell)> {
        self.tiers.iter().flat_map(move |buckets| {
            buckets.range(from..).flat_map(|(&start, bucket)| {
                bucket.iter().map(move |(key, cell)| (start, key, cell))
            })
        })
    }

    /// When the oldest bucket begins.
    pub(super) fn first(&self) -> Option<i64> {
        self.tiers.iter().filter_map(|buckets| Some(*buckets.first_key_value()?.0)).min()
    }
}

/// When the bucket of a moment begins.
pub(super) fn start_of(moment: i64, width: i64) -> i64 {
    moment.div_euclid(width) * width
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(customer: u16) -> Key {
        let mut names = super::super::names::Names::new(1000);
        for n in 0..customer {
            names.symbol(&n.to_string());
        }
        Key {
            customer: names.symbol(&customer.to_string()),
            event_name: Symbol::NONE,
            endpoint: Symbol::NONE,
            method: Symbol::NONE,
            status: Some(200 + customer % 3),
            counted_by: 0,
        }
    }

    fn calls(rollup: &Rollup, from: i64) -> u64 {
        rollup.since(from).map(|(.., cell)| cell.calls).sum()
    }

    /// Every call is counted once whatever the time, and a period holds the calls of its buckets.
    #[test]
    fn what_is_rolled_up_is_what_a_list_of_all_calls_says() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..40 {
            let mut now = 1_700_000_000 + random.i64(0..1_000_000);
            let mut rollup = Rollup::new(now);
            let mut list: Vec<(i64, Key, u64)> = Vec::new();
            for _ in 0..400 {
                now += [0, 1, 7, 90, 4000, 100_000][random.usize(0..6)];
                rollup.advance(now);
                let at = now - random.i64(-300..3600);
                let (key, bytes) = (key(random.u16(0..4)), random.u64(0..10));
                rollup.record(at, key, bytes, Some(random.f64() * 100.0));
                list.push((at.min(now), key, bytes));
            }
            assert_eq!(calls(&rollup, i64::MIN), list.len() as u64);
            assert_eq!(rollup.cells, rollup.since(i64::MIN).count());
            for customer in 0..4 {
                let of = |wanted: &Key| *wanted == key(customer);
                let cells = rollup.since(i64::MIN).filter(|(_, key, _)| of(key));
                let counted = cells.fold((0, 0), |(calls, bytes), (.., cell)| {
                    (calls + cell.calls, bytes + cell.bytes)
                });
                let listed: Vec<u64> =
                    list.iter().filter(|(_, key, _)| of(key)).map(|(.., bytes)| *bytes).collect();
                assert_eq!(counted, (listed.len() as u64, listed.iter().sum()));
            }
            for (width, period) in
                [(5, 5 * MINUTE), (MINUTE, HOUR), (30 * MINUTE, DAY), (12 * HOUR, 30 * DAY)]
            {
                let from = start_of(now - period, width) + width;
                let listed = list.iter().filter(|(at, ..)| *at >= from).count();
                assert_eq!(calls(&rollup, from), listed as u64, "{period} s");
            }
        }
    }

    #[test]
    fn buckets_widen_with_age_and_keep_every_call() {
        let mut rollup = Rollup::new(0);
        for second in 0..2 * HOUR {
            rollup.advance(second);
            rollup.record(second, key(0), 1, Some(10.0));
        }
        assert_eq!(calls(&rollup, i64::MIN), 2 * HOUR as u64);
        let buckets = rollup.tiers.each_ref().map(BTreeMap::len);
        assert!(buckets[0] <= 73 && buckets[1] <= 61 && buckets[2] <= 5, "{buckets:?}");
        rollup.advance(100 * DAY);
        assert_eq!(rollup.tiers.each_ref().map(BTreeMap::len), [0, 0, 0, 0, 1]);
        assert_eq!((calls(&rollup, i64::MIN), rollup.cells), (2 * HOUR as u64, 1));
        assert_eq!(rollup.first(), Some(0));
    }

    #[test]
    fn there_is_room_for_so_many_cells_and_every_call_is_counted_still() {
        let mut rollup = Rollup { most_cells: 10, ..Rollup::new(1000) };
        for customer in 0..100 {
            rollup.record(1000, key(customer), 0, None);
            rollup.record(1000, key(0), 0, None);
        }
        assert_eq!(calls(&rollup, i64::MIN), 200);
        assert!(rollup.cells <= 10 + 3, "{}", rollup.cells);
        let known: Vec<_> = rollup
            .since(0)
            .filter(|(_, of, _)| **of == key(0))
            .map(|(.., cell)| cell.calls)
            .collect();
        assert_eq!(known, [101], "who was known before is told apart still");
    }
}
