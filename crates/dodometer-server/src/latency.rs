//! Counted response times, for percentiles that need no list of every call.
//!
//! A time is kept in microseconds at three significant digits, so whole milliseconds up to 999 are
//! exact and no time is off by more than half a percent. Counts of the same times add up, whatever
//! calls they came from: a percentile of a whole is made of its parts' counts, never of their
//! percentiles. Memory is bounded by the distinct times, not by the calls.

/// Longer times count as this one: 31 years in microseconds.
const LONGEST: u64 = 1_000_000_000_000_000;
/// Times below this have a bin each; above, each power of ten has [`BINS_OF_A_DECADE`].
const EXACT: u64 = 1000;
const BINS_OF_A_DECADE: u16 = 900;
/// One more than the bin of the longest time.
const BINS: usize = bin(LONGEST) as usize + 1;

/// Response times of some calls.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Latency {
    /// Bins and how many times fell into each, the shortest first.
    counts: Vec<(u16, u32)>,
}

impl Latency {
    /// Counts one time in milliseconds; what cannot be a time is left out.
    pub(crate) fn record(&mut self, milliseconds: f64) {
        if milliseconds.is_finite() && milliseconds >= 0.0 {
            self.add(bin((milliseconds * 1000.0).round() as u64), 1);
        }
    }

    /// Takes the times of `other` in.
    pub(crate) fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
            return;
        }
        for &(bin, count) in &other.counts {
            self.add(bin, count);
        }
    }

    fn add(&mut self, bin: u16, count: u32) {
        match self.counts.binary_search_by_key(&bin, |(known, _)| *known) {
            Ok(index) => self.counts[index].1 = self.counts[index].1.saturating_add(count),
            Err(index) => self.counts.insert(index, (bin, count)),
        }
    }

    /// The smallest time that at least `percent` of the calls did not exceed, in milliseconds.
    pub(crate) fn percentile(&self, percent: u64) -> Option<f64> {
        let counts = || self.counts.iter().map(|&(bin, count)| (bin, u64::from(count)));
        nearest_rank(counts(), counts().map(|(_, count)| count).sum(), percent)
    }
}

/// The sum of many [`Latency`]s, in an array that serves one sum after another.
pub(crate) struct Sum {
    counts: Vec<u64>,
    total: u64,
    /// The bins in use lie from the one up to before the other.
    lowest: usize,
    end: usize,
}

impl Sum {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; BINS], total: 0, lowest: BINS, end: 0 }
    }

    /// The percentiles of all the times of `parts` together, in milliseconds.
    pub(crate) fn percentiles<'l, const N: usize>(
        &mut self,
        parts: impl IntoIterator<Item = &'l Latency>,
        percents: [u64; N],
    ) -> [Option<f64>; N] {
        for &(bin, count) in parts.into_iter().flat_map(|part| &part.counts) {
            let bin = usize::from(bin);
            self.counts[bin] += u64::from(count);
            self.total += u64::from(count);
            self.lowest = self.lowest.min(bin);
            self.end = self.end.max(bin + 1);
        }
        let found = percents.map(|percent| {
            let counts = (self.lowest..self.end).map(|bin| (bin as u16, self.counts[bin]));
            nearest_rank(counts, self.total, percent)
        });
        for bin in self.lowest..self.end {
            self.counts[bin] = 0;
        }
        (self.total, self.lowest, self.end) = (0, BINS, 0);
        found
    }
}

/// The time of the first bin up to which at least `percent` of `total` lie.
fn nearest_rank(
    mut counts: impl Iterator<Item = (u16, u64)>,
    total: u64,
    percent: u64,
) -> Option<f64> {
    let rank = (u128::from(total) * u128::from(percent)).div_ceil(100).max(1);
    let mut passed = 0_u128;
    counts.find_map(|(bin, count)| {
        passed += u128::from(count);
        (passed >= rank).then(|| micros(bin) as f64 / 1000.0)
    })
}

/// The bin of a time in microseconds.
const fn bin(micros: u64) -> u16 {
    let micros = if micros > LONGEST { LONGEST } else { micros };
    if micros < EXACT {
        return micros as u16;
    }
    // The power of ten above the exact ones, and how often its unit goes into the time.
    let decade = micros.ilog10() - 3;
    let unit = 10_u64.pow(decade + 1);
    let digits = (micros + unit / 2) / unit;
    EXACT as u16 + decade as u16 * BINS_OF_A_DECADE + (digits - 100) as u16
}

/// The time that a bin stands for.
fn micros(bin: u16) -> u64 {
    let Some(above) = bin.checked_sub(EXACT as u16) else { return u64::from(bin) };
    let (decade, digits) = (above / BINS_OF_A_DECADE, above % BINS_OF_A_DECADE);
    (u64::from(digits) + 100) * 10_u64.pow(u32::from(decade) + 1)
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
    fn times_keep_three_digits_and_nonsense_is_left_out() {
        for (given, kept) in [
            (0.0, 0.0),
            (0.001, 0.001),
            (0.999, 0.999),
            (1.004, 1.0),
            (9.996, 10.0),
            (999.0, 999.0),
            (12.3456, 12.3),
            (99.96, 100.0),
            (123_456.0, 123_000.0),
        ] {
            let mut latency = Latency::default();
            latency.record(given);
            assert_eq!(latency.percentile(50), Some(kept), "{given}");
        }
        let mut latency = Latency::default();
        for nonsense in [f64::NAN, f64::INFINITY, -1.0] {
            latency.record(nonsense);
        }
        assert_eq!(latency, Latency::default());
        latency.record(1e300);
        assert!(latency.percentile(50).is_some(), "a huge time does not overflow");
        assert!((0..BINS as u16).all(|index| bin(micros(index)) == index));
    }

    #[test]
    fn the_parts_add_up_to_the_whole() {
        let times = |from: u32| (0..400).map(move |n| f64::from(from + n * n % 977) / 3.0);
        let (mut whole, mut parts) = (Latency::default(), [Latency::default(), Latency::default()]);
        for (part, from) in parts.iter_mut().zip([1, 5000]) {
            for time in times(from) {
                part.record(time);
                whole.record(time);
            }
        }
        let mut sum = Sum::new();
        let percents = [0, 1, 50, 95, 99, 100];
        for _ in 0..2 {
            assert_eq!(sum.percentiles(&parts, percents), percents.map(|p| whole.percentile(p)));
        }
        assert_eq!(sum.percentiles([], [50]), [None], "nothing is left of the sum before");
        let [mut merged, other] = parts;
        merged.merge(&other);
        assert_eq!(merged, whole);
    }
}
