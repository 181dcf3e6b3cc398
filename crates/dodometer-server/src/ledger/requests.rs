//! The ingest requests answered: how many, how many of late, and why some were refused.
//!
//! The counts outlive the process, in the store; what was refused and when is kept here only.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;

/// How many of the newest refusals are kept.
const KEPT: usize = 50;
/// How much is kept of a refusal's message, in characters: it may quote what was sent.
const MESSAGE_CHARS: usize = 300;
/// The window of the billing API's published budget.
const MINUTE: i64 = 60;

#[derive(Debug, Default, Clone)]
pub(crate) struct Requests {
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) duplicates: u64,
    /// The newest first.
    refusals: VecDeque<Refused>,
    /// Seconds of late and how many requests came in each, the oldest first.
    seconds: VecDeque<(i64, u64)>,
}

/// A request that was refused.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Refused {
    pub(crate) timestamp: Timestamp,
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// How many events it carried, as far as that could be read.
    pub(crate) events: Option<usize>,
}

impl Requests {
    /// What a store remembers of the requests.
    pub(crate) fn stored(accepted: u64, refused: u64, duplicates: u64) -> Self {
        Self { accepted, refused, duplicates, ..Self::default() }
    }

    pub(crate) fn accept(&mut self, now: Timestamp, duplicates: u64) {
        self.accepted += 1;
        self.duplicates += duplicates;
        self.came(now);
    }

    pub(crate) fn refuse(&mut self, mut refused: Refused) {
        self.refused += 1;
        self.came(refused.timestamp);
        if let Some((end, _)) = refused.message.char_indices().nth(MESSAGE_CHARS) {
            refused.message.truncate(end);
            refused.message.push('…');
        }
        self.refusals.truncate(KEPT - 1);
        self.refusals.push_front(refused);
    }

    fn came(&mut self, now: Timestamp) {
        let now = now.as_second();
        // Later ones are of before the clock was moved back.
        while self.seconds.back().is_some_and(|(second, _)| *second > now) {
            self.seconds.pop_back();
        }
        while self.seconds.front().is_some_and(|(second, _)| now - second >= MINUTE) {
            self.seconds.pop_front();
        }
        match self.seconds.back_mut() {
            Some((second, count)) if *second == now => *count += 1,
            _ => self.seconds.push_back((now, 1)),
        }
    }

    pub(crate) fn answered(&self) -> u64 {
        self.accepted + self.refused
    }

    pub(super) fn in_the_last_minute(&self, now: i64) -> u64 {
        let late = self.seconds.iter().filter(|(second, _)| (0..MINUTE).contains(&(now - second)));
        late.map(|(_, count)| count).sum()
    }

    pub(super) fn refusals(&self) -> &VecDeque<Refused> {
        &self.refusals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_last_minute_slides() {
        let mut requests = Requests::stored(7, 2, 1);
        for second in [100, 100, 130] {
            requests.accept(at(second), 1);
        }
        let late = [130, 159, 160, 189, 190].map(|now| requests.in_the_last_minute(now));
        assert_eq!(late, [3, 3, 1, 1, 0]);
        assert_eq!((requests.answered(), requests.duplicates), (12, 4));
    }

    #[test]
    fn what_came_by_a_later_clock_is_not_of_the_last_minute() {
        let mut requests = Requests::default();
        for second in [100, 90_100, 90_100] {
            requests.accept(at(second), 0);
        }
        assert_eq!([90_110, 110].map(|now| requests.in_the_last_minute(now)), [2, 0]);
        requests.accept(at(120), 0);
        assert_eq!([120, 179, 180].map(|now| requests.in_the_last_minute(now)), [1, 1, 0]);
    }

    #[test]
    fn refusals_are_few_and_short() {
        let mut requests = Requests::default();
        for second in 0..60 {
            requests.refuse(Refused {
                timestamp: at(second),
                status: 400,
                code: "CODE",
                message: "é".repeat(1000),
                events: None,
            });
        }
        assert_eq!((requests.refused, requests.refusals().len()), (60, KEPT));
        let newest = requests.refusals().front().unwrap();
        assert_eq!(newest.timestamp, at(59));
        assert_eq!(newest.message.chars().count(), MESSAGE_CHARS + 1);
    }
}
