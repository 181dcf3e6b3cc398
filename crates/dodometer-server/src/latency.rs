//! Counted response times, for percentiles that need no list of every call.
//!
//! A time is kept in microseconds at four significant digits (so whole milliseconds up to 9,999 are
//! exact); memory is bounded by the distinct values, not by the calls.

use std::collections::BTreeMap;

/// Longer times count as this one: 31 years in microseconds.
const LONGEST: u64 = 1_000_000_000_000_000;

/// Response times of one customer, or of all.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    counts: BTreeMap<u64, u64>,
    total: u64,
}

impl Latency {
    /// Counts one time in milliseconds; what cannot be a time is left out.
    pub(crate) fn record(&mut self, milliseconds: f64) {
        if milliseconds.is_finite() && milliseconds >= 0.0 {
            let micros = ((milliseconds * 1000.0).round() as u64).min(LONGEST);
            *self.counts.entry(four_digits(micros)).or_default() += 1;
            self.total += 1;
        }
    }

    /// The smallest time that at least `percent` of the calls did not exceed, in milliseconds.
    pub(crate) fn percentile(&self, percent: u64) -> Option<f64> {
        let rank = (u128::from(self.total) * u128::from(percent)).div_ceil(100).max(1);
        let mut passed = 0_u128;
        self.counts.iter().find_map(|(&micros, &count)| {
            passed += u128::from(count);
            (passed >= rank).then_some(micros as f64 / 1000.0)
        })
    }
}

fn four_digits(micros: u64) -> u64 {
    let digits = micros.checked_ilog10().unwrap_or(0) + 1;
    let unit = 10_u64.pow(digits.saturating_sub(4));
    (micros / unit + u64::from(micros % unit >= unit.div_ceil(2) && unit > 1)) * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let mut latency = Latency::default();
        assert_eq!(latency.percentile(50), None);
        for time in 1..=100 {
            latency.record(f64::from(time));
        }
        assert_eq!(latency.percentile(50), Some(50.0));
        assert_eq!(latency.percentile(95), Some(95.0));
        assert_eq!(latency.percentile(100), Some(100.0));

        let mut one = Latency::default();
        one.record(12.5);
        assert_eq!((one.percentile(50), one.percentile(95)), (Some(12.5), Some(12.5)));
    }

    #[test]
    fn times_keep_four_digits_and_nonsense_is_left_out() {
        for (given, kept) in
            [(0.0, 0.0), (0.001, 0.001), (9999.0, 9999.0), (12.3456, 12.35), (123_456.0, 123_500.0)]
        {
            let mut latency = Latency::default();
            latency.record(given);
            assert_eq!(latency.percentile(50), Some(kept), "{given}");
        }
        let mut latency = Latency::default();
        for nonsense in [f64::NAN, f64::INFINITY, -1.0] {
            latency.record(nonsense);
        }
        assert_eq!(latency.percentile(50), None);
        latency.record(1e300);
        assert!(latency.percentile(50).is_some(), "a huge time does not overflow");
    }
}
