//! What is done to whom, how often, in which pace.

use std::ops::RangeInclusive;

/// The pauses where writers are hasty: so short that many are killed while they are.
pub const FULL_SPEED_PAUSE_MS: RangeInclusive<u64> = 5..=60;

/// One thing that is done to a running process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// SIGKILL to any writer; another takes its place.
    KillWriter,
    /// SIGKILL to the writer that sends for all; another takes its place.
    KillSender,
    /// SIGKILL to the meter, which is soon started again on the same port and file.
    KillMeter,
    /// SIGSTOP to the sender, SIGCONT a while later. The other writers must go on accepting.
    StopSender,
    /// SIGSTOP to the meter, SIGCONT a while later: requests time out that are carried out all the same.
    StopMeter,
}

/// How many requests the writers may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// So many that they are no bound.
    Ample,
    /// What the billing API publishes: the core's defaults. The meter refuses more, and no call waits
    /// for others.
    Published,
}

/// A scenario.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it is called in a report.
    pub name: &'static str,
    /// How many writers there are at a time.
    pub writers: usize,
    /// What is done, and how often; the seed gives the order.
    pub acts: Vec<(Act, u32)>,
    /// How many milliseconds lie between one act and the next.
    pub pause_ms: RangeInclusive<u64>,
    /// Whether writers make their first calls in bursts, as fast as they can; else they rest after each.
    pub full_speed: bool,
    /// How many requests the writers may make.
    pub budget: Budget,
}

impl Plan {
    /// Everything at once: so many kills of writers, senders and the meter, and a stop for every tenth.
    pub fn mixed(kills: u32) -> Self {
        let (senders, meters) = (kills / 3, kills / 4);
        Self {
            name: "mixed",
            writers: 4,
            acts: vec![
                (Act::KillWriter, kills - senders - meters),
                (Act::KillSender, senders),
                (Act::KillMeter, meters),
                (Act::StopSender, kills.div_ceil(20)),
                (Act::StopMeter, kills.div_ceil(20)),
            ],
            pause_ms: FULL_SPEED_PAUSE_MS,
            full_speed: true,
            budget: Budget::Ample,
        }
    }
}
