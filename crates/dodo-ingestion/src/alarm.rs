//! Alarms: what an operator should hear of. Logged, counted, rate-limited, and handed to the host.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::MonoMs;
use crate::error::on_one_line;

/// The same kind is told again after this; what comes between is counted.
const REPEAT_MS: MonoMs = 60_000;
const MAX_MESSAGE_CHARS: usize = 600;

macro_rules! alarm_kinds {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// What an alarm is about, as a stable name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum AlarmKind { $($(#[$doc])+ $variant,)+ }

        impl AlarmKind {
            /// The kind's stable name, the same in every language.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

alarm_kinds! {
    /// The environment was not chosen: nothing is billed live.
    TestMode = "test_mode",
    /// Accepted calls live in memory only.
    MemoryOnly = "memory_only",
    /// Directories of the spool were open to other users, and were closed to them.
    OpenToOthers = "open_to_others",
    /// The spool is in a container's writable layer, and goes when the container goes.
    ContainerLayer = "container_layer",
    /// The API key is not taken. Calls are kept.
    Authentication = "authentication",
    /// The address is wrong, or something stands between. Calls are kept.
    Address = "address",
    /// Requests fail in a row. Calls are kept.
    Unreachable = "unreachable",
    /// A call was refused and set aside.
    DeadLettered = "dead_lettered",
    /// Calls of many customers were refused and none taken: delivery stopped. Calls are kept.
    Systemic = "systemic",
    /// What had stopped delivery is over.
    Resumed = "resumed",
    /// Calls were too old for their own time and billed with a later one.
    Restamped = "restamped",
    /// Calls of an earlier month (UTC) were billed in this one.
    BilledInLaterMonth = "billed_in_later_month",
    /// The billing API fails on a call whenever it is sent. The call is kept.
    Parked = "parked",
    /// A call was not accepted, because the spool is full.
    Overflow = "overflow",
    /// A call was not accepted, because it breaks a limit.
    Invalid = "invalid",
    /// The disk failed.
    Storage = "storage",
    /// Bytes of a spool could not be read, and were set aside.
    Quarantined = "quarantined",
    /// A spool was written by a newer version, and is left to it.
    NewerFormat = "newer_format",
    /// The process that delivers for all of this account shows no sign of life. Calls are kept.
    SenderStalled = "sender_stalled",
    /// More processes have calls waiting than are served at a time. Calls are kept.
    Crowded = "crowded",
    /// Another process of this account has another key or other settings.
    SettingsDiffer = "settings_differ",
    /// Calls of another account wait, and no process of that account runs.
    Abandoned = "abandoned",
}

impl AlarmKind {
    /// Whether no call is billed while it lasts.
    pub(crate) fn holds_up_delivery(self) -> bool {
        matches!(self, Self::Authentication | Self::Address | Self::Unreachable | Self::Systemic)
    }

    /// Whether the operator looks for something on the disk.
    pub(crate) fn leaves_files(self) -> bool {
        matches!(self, Self::DeadLettered | Self::Quarantined | Self::NewerFormat)
    }
}

/// Something that an operator should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Alarm {
    /// What it is about.
    pub kind: AlarmKind,
    /// What happened and what to do, on one line. Never holds the API key.
    pub message: String,
    /// How often the kind occurred since it was last told, this time included.
    pub occurrences: u64,
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.message)?;
        if self.occurrences > 1 {
            write!(f, " (the latest of {})", self.occurrences)?;
        }
        Ok(())
    }
}

pub(crate) type AlarmCallback = Arc<dyn Fn(&Alarm) + Send + Sync>;

/// Counts alarms and passes on those that are not repetitions.
#[derive(Default)]
pub(crate) struct Alarms {
    raised: AtomicU64,
    by_kind: Mutex<HashMap<AlarmKind, Repetition>>,
    /// By the number of their membership: a client has one in each process.
    callbacks: Mutex<BTreeMap<u64, AlarmCallback>>,
}

#[derive(Default)]
struct Repetition {
    told_at: Option<MonoMs>,
    since: u64,
}

impl fmt::Debug for Alarms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarms").field("raised", &self.raised).finish_non_exhaustive()
    }
}

impl Alarms {
    fn callbacks(&self) -> MutexGuard<'_, BTreeMap<u64, AlarmCallback>> {
        self.callbacks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a client of what is raised from now on.
    pub(crate) fn add_callback(&self, number: u64, callback: AlarmCallback) {
        self.callbacks().insert(number, callback);
    }

    /// Tells a client, and none of those that were there before. Returns their callbacks, to be dropped
    /// where nothing is locked.
    pub(crate) fn replace_callbacks(
        &self,
        number: u64,
        callback: AlarmCallback,
    ) -> BTreeMap<u64, AlarmCallback> {
        std::mem::replace(&mut *self.callbacks(), BTreeMap::from([(number, callback)]))
    }

    pub(crate) fn remove_callback(&self, number: u64) {
        // A callback is the host's: it is dropped where nothing is locked.
        let removed = self.callbacks().remove(&number);
        drop(removed);
    }

    /// How many were raised, repetitions included.
    pub(crate) fn raised(&self) -> u64 {
        self.raised.load(Ordering::Relaxed)
    }

    pub(crate) fn raise(&self, kind: AlarmKind, message: &str, now: MonoMs) {
        self.raised.fetch_add(1, Ordering::Relaxed);
        let occurrences = {
            let mut by_kind = self.by_kind.lock().unwrap_or_else(PoisonError::into_inner);
            let repetition = by_kind.entry(kind).or_default();
            repetition.since += 1;
            if repetition.told_at.is_some_and(|told_at| now < told_at + REPEAT_MS) {
                return;
            }
            repetition.told_at = Some(now);
            std::mem::take(&mut repetition.since)
        };
        let alarm = Alarm { kind, message: bounded(message), occurrences };
        tracing::warn!(target: "dodo_ingestion", kind = kind.as_str(), "{alarm}");
        let callbacks: Vec<AlarmCallback> = self.callbacks().values().cloned().collect();
        for callback in callbacks {
            // A callback that panics is the host's own; delivery goes on.
            let called = std::panic::AssertUnwindSafe(|| callback(&alarm));
            if std::panic::catch_unwind(called).is_err() {
                tracing::error!(target: "dodo_ingestion", "the on_alarm callback panicked");
            }
        }
    }
}

/// On one line, and bounded.
pub(crate) fn bounded(message: &str) -> String {
    on_one_line(message).take(MAX_MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted_and_told_once_a_minute() {
        let told: Arc<Mutex<Vec<Alarm>>> = Arc::default();
        let alarms = Alarms::default();
        let sink = told.clone();
        alarms.add_callback(0, Arc::new(|_| panic!("the host's own")));
        alarms.add_callback(1, Arc::new(move |alarm| sink.lock().unwrap().push(alarm.clone())));
        for now in [0, 1, 59_999, 60_000] {
            alarms.raise(AlarmKind::Overflow, "full\nof\u{1b}it", now);
        }
        alarms.raise(AlarmKind::Storage, "broken", 1);
        let told = told.lock().unwrap();
        let seen: Vec<_> = told.iter().map(|alarm| (alarm.kind, alarm.occurrences)).collect();
        assert_eq!(
            seen,
            [(AlarmKind::Overflow, 1), (AlarmKind::Overflow, 3), (AlarmKind::Storage, 1)]
        );
        assert_eq!(told[0].message, "full\\nof\\u{1b}it");
        assert_eq!(alarms.raised(), 5);
    }

    #[test]
    fn a_message_is_one_line_of_a_bounded_length_whatever_it_quotes() {
        assert_eq!(bounded("a\u{2028}b\u{202e}c\td"), "a\\u{2028}b\\u{202e}c\\td");
        assert_eq!(bounded(&"\u{1}".repeat(600)).chars().count(), MAX_MESSAGE_CHARS);
        assert_eq!(bounded("Grüße, 日本"), "Grüße, 日本");
    }
}
