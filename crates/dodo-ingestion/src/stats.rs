//! Counters for a host's own monitoring.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::settlement::Ends;
use crate::shared::Shared;

macro_rules! counts {
    ($(#[$meta:meta])* { $($(#[doc = $doc:literal])+ $name:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        #[non_exhaustive]
        pub struct Stats { $($(#[doc = $doc])+ pub $name: u64,)+ }

        impl Stats {
            /// The name of each count, and what it counts.
            #[doc(hidden)]
            pub const COUNTS: &[(&str, &str)] = &[$((stringify!($name), concat!($($doc),+)),)+];
        }
    };
}

counts! {
    /// What the clients of one account in this process have done since they were built.
    ///
    /// At every moment `accepted = billed + dead_lettered + quarantined + spooled`. `requests`, `retries`
    /// and `restamped` count what this process did as the account's sender, for all its processes.
    {
        /// Calls accepted.
        accepted,
        /// Calls that the billing API acknowledged.
        billed,
        /// Calls that the billing API refused for good.
        dead_lettered,
        /// Calls that wait; also those that another process may have delivered, since the host closed the
        /// files of the spool.
        spooled,
        /// Calls refused here, because they break a limit.
        invalid,
        /// Calls refused here, because the spool was full, or the disk did not take them.
        overflowed,
        /// Requests started.
        requests,
        /// Requests that have to be made again.
        retries,
        /// Calls billed with a later time than their own, because they were too old.
        restamped,
        /// Calls lost to damage of the disk; what could be read of them lies in quarantine.
        quarantined,
        /// Alarms raised, repetitions included.
        alarms,
    }
}

impl Stats {
    pub(crate) fn of(shared: &Shared) -> Self {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &shared.counters;
        // Settled calls are counted before accepted ones, so that the sum never falls short; and no call
        // that is being accepted meanwhile is taken for billed.
        let Ends { billed, dead_lettered, lost: quarantined } =
            shared.settlement.ends(shared.writer.next_seq());
        let accepted = get(&counters.accepted);
        // A call whose sync failed was not accepted, and may be billed.
        let billed = billed.min(accepted.saturating_sub(dead_lettered + quarantined));
        Self {
            accepted,
            billed,
            dead_lettered,
            spooled: accepted.saturating_sub(billed + dead_lettered + quarantined),
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
