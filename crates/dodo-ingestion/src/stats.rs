//! Counters for a host's own monitoring.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::shared::Shared;

/// What the clients of one account in this process have done since they were built.
///
/// At every moment `accepted = billed + dead_lettered + quarantined + spooled`. `requests`, `retries`
/// and `restamped` count what this process did as the account's sender, for all its processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Calls accepted.
    pub accepted: u64,
    /// Calls that the billing API acknowledged.
    pub billed: u64,
    /// Calls set aside because the billing API refused them.
    pub dead_lettered: u64,
    /// Calls that wait; also those that another process may have delivered, since the host closed the
    /// files of the spool.
    pub spooled: u64,
    /// Calls refused here, because they break a published limit.
    pub invalid: u64,
    /// Calls refused here, because the spool was full.
    pub overflowed: u64,
    /// Requests started.
    pub requests: u64,
    /// Requests that have to be made again.
    pub retries: u64,
    /// Calls billed with a later time than their own, because they were too old.
    pub restamped: u64,
    /// Calls lost to damage of the disk; what could be read of them lies in quarantine.
    pub quarantined: u64,
    /// Alarms raised, repetitions included.
    pub alarms: u64,
}

impl Stats {
    pub(crate) fn of(shared: &Shared) -> Self {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &shared.counters;
        // Settled calls are counted before accepted ones, so that the sum never falls short.
        let spooled =
            shared.settlement.unsettled_calls(shared.writer.next_seq()) + shared.settlement.left();
        let dead_lettered = shared.settlement.dead_lettered();
        let quarantined = shared.settlement.lost();
        let accepted = get(&counters.accepted);
        Self {
            accepted,
            billed: accepted
                .saturating_sub(spooled)
                .saturating_sub(dead_lettered)
                .saturating_sub(quarantined),
            dead_lettered,
            spooled,
            invalid: get(&counters.invalid),
            overflowed: get(&counters.overflowed),
            requests: get(&counters.requests),
            retries: get(&counters.retries),
            restamped: get(&counters.restamped),
            quarantined,
            alarms: shared.alarms.raised(),
        }
    }
}
