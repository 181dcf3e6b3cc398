//! How large a request may be. No limit is published: what the server takes is learnt from its 413.

use super::queue::FULL;
use crate::clock::MonoMs;

/// A request is never larger.
const MOST: usize = FULL.bytes;
/// What is learnt goes no lower; below it, the records of that one request are told apart.
pub(super) const LEAST: usize = 4_096;
/// After so long without a 413, whatever stood between may be gone, and twice as much is tried.
const CLEAN_MS: MonoMs = 10 * 60_000;

#[derive(Debug)]
pub(super) struct RequestSize {
    bytes: usize,
    changed: MonoMs,
}

impl Default for RequestSize {
    fn default() -> Self {
        Self { bytes: MOST, changed: 0 }
    }
}

impl RequestSize {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A request of so many bytes was too large. False if that teaches nothing of others.
    pub(super) fn too_large(&mut self, bytes: usize, now: MonoMs) -> bool {
        let learnt = bytes.min(self.bytes) / 2;
        let learns = learnt >= LEAST;
        if learns {
            (self.bytes, self.changed) = (learnt, now);
        }
        learns
    }

    /// A request was taken.
    pub(super) fn accepted(&mut self, now: MonoMs) {
        if self.bytes < MOST && now >= self.changed + CLEAN_MS {
            (self.bytes, self.changed) = ((2 * self.bytes).min(MOST), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_413_halves_and_each_ten_clean_minutes_double() {
        let mut size = RequestSize::default();
        assert!(size.too_large(800_000, 0) && size.too_large(600_000, 0));
        assert_eq!(size.bytes(), 200_000);
        let mut sizes = Vec::new();
        for minute in 1..=40 {
            size.accepted(minute * 60_000);
            sizes.push(size.bytes());
        }
        sizes.dedup();
        assert_eq!(sizes, [200_000, 400_000, 800_000, 1_000_000]);
        assert!(size.too_large(1_000_000, 45 * 60_000));
        size.accepted(54 * 60_000);
        assert_eq!(size.bytes(), 500_000, "it is not ten minutes");
        assert!(!size.too_large(8_000, 0));
        assert_eq!(size.bytes(), 500_000, "one small request teaches nothing");
    }
}
