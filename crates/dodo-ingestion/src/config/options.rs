//! The one table of options, and the types of their values.

use std::time::Duration;

use crate::error::{Error, Result};

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum OptionKind {
    /// Any text.
    Text,
    /// Text that is never shown.
    Secret,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// True or false.
    Flag,
    /// A duration in seconds.
    Seconds {
        /// The shortest taken.
        min: f64,
        /// The longest taken.
        max: f64,
    },
    /// A whole number.
    Count {
        /// The smallest taken.
        min: u64,
        /// The largest taken.
        max: u64,
    },
    /// A number of bytes.
    Bytes {
        /// The smallest taken.
        min: u64,
        /// The largest taken.
        max: u64,
    },
}

/// One option: its name, where else it may come from, what it takes and what it means.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The name, in snake case. Languages with another case translate it mechanically.
    pub name: &'static str,
    /// The environment variable that is read when no argument is given.
    pub env: &'static str,
    /// What the option takes.
    pub kind: OptionKind,
    /// The default, as the environment variable would give it; empty where there is none.
    pub default: &'static str,
    /// What the option means, its units and limits.
    pub doc: &'static str,
}

/// The unit in which a language gives lengths of time as bare numbers, and is told of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeUnit {
    /// Seconds.
    #[default]
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

impl TimeUnit {
    /// How many of it are a second.
    pub(crate) const fn per_second(self) -> f64 {
        match self {
            Self::Seconds => 1.0,
            Self::Milliseconds => 1000.0,
        }
    }

    /// How many of it a length of time is.
    pub(crate) fn count(self, duration: Duration) -> f64 {
        match self {
            Self::Seconds => duration.as_secs_f64(),
            Self::Milliseconds => duration.as_micros() as f64 / 1000.0,
        }
    }

    /// Why a length of time is refused that is not between `min` and `max` seconds.
    pub(crate) fn out_of_range(
        self,
        given: &str,
        seconds: Option<f64>,
        min: f64,
        max: f64,
    ) -> String {
        let (min_shown, max_shown) = (min * self.per_second(), max * self.per_second());
        match self {
            Self::Seconds => {
                let hint = milliseconds_hint(seconds, max);
                format!("must be {min_shown} to {max_shown} seconds, not {given}{hint}")
            }
            Self::Milliseconds => {
                format!("must be {min_shown} to {max_shown} milliseconds, not {given}")
            }
        }
    }
}

/// A number of seconds that is too large looks like milliseconds: `; 5000? use 5`.
fn milliseconds_hint(seconds: Option<f64>, max: f64) -> String {
    match seconds {
        Some(given) if given > max && given / 1000.0 <= max => {
            format!("; durations are in seconds: for {given} milliseconds use {:?}", given / 1000.0)
        }
        _ => String::new(),
    }
}

/// Every option of a client.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "api_key",
        env: "DODO_PAYMENTS_API_KEY",
        kind: OptionKind::Secret,
        default: "",
        doc: "The billing API's secret key. Required. Never stored, logged or shown.",
    },
    OptionSpec {
        name: "environment",
        env: "DODO_PAYMENTS_ENVIRONMENT",
        kind: OptionKind::Choice(&["test_mode", "live_mode"]),
        default: "test_mode",
        doc: "Which of the provider's two environments is billed. Nothing is charged in test_mode.",
    },
    OptionSpec {
        name: "base_url",
        env: "DODO_PAYMENTS_BASE_URL",
        kind: OptionKind::Text,
        default: "",
        doc: "Where the billing API is; overrides the environment's own address. https only, except http to this machine itself, or to a named host with allow_http.",
    },
    OptionSpec {
        name: "event_name",
        env: "DODO_INGESTION_EVENT_NAME",
        kind: OptionKind::Text,
        default: "",
        doc: "The event name of calls without one of their own. Required. Must equal the meter's event name exactly, case included.",
    },
    OptionSpec {
        name: "account",
        env: "DODO_INGESTION_ACCOUNT",
        kind: OptionKind::Text,
        default: "",
        doc: "A name for the business that is billed: 1 to 40 letters, digits, - or _. By default derived from the API key; naming it lets calls spooled under an old key be delivered with a new one.",
    },
    OptionSpec {
        name: "spool_dir",
        env: "DODO_INGESTION_SPOOL_DIR",
        kind: OptionKind::Text,
        default: "",
        doc: "The directory under which accepted calls are kept until they are billed. By default the platform's directory for state.",
    },
    OptionSpec {
        name: "allow_filesystem",
        env: "DODO_INGESTION_ALLOW_FILESYSTEM",
        kind: OptionKind::Text,
        default: "",
        doc: "File systems that spool_dir may be on although they are on another machine or in a container's layer, such as nfs or overlay, separated by commas. Only one machine at a time may use a spool_dir.",
    },
    OptionSpec {
        name: "durability",
        env: "DODO_INGESTION_DURABILITY",
        kind: OptionKind::Choice(&["process", "disk", "memory"]),
        default: "process",
        doc: "What an accepted call survives. process: the death of this process. disk: also a crash of the machine (each call waits for a sync). memory: neither (for hosts without a disk; at most 16 MiB).",
    },
    OptionSpec {
        name: "linger",
        env: "DODO_INGESTION_LINGER",
        kind: OptionKind::Seconds { min: 0.0, max: 300.0 },
        default: "1",
        doc: "How long a single call may wait for others to share its request.",
    },
    OptionSpec {
        name: "max_spool_bytes",
        env: "DODO_INGESTION_MAX_SPOOL_BYTES",
        kind: OptionKind::Bytes { min: 1 << 20, max: 1 << 40 },
        default: "1073741824",
        doc: "How much disk the calls of one account may take. Beyond it the newest calls are refused with overflow.",
    },
    OptionSpec {
        name: "allow_http",
        env: "DODO_INGESTION_ALLOW_HTTP",
        kind: OptionKind::Flag,
        default: "false",
        doc: "Whether base_url may be plain http to another host than this machine. Never in live_mode.",
    },
    OptionSpec {
        name: "requests_per_minute",
        env: "DODO_INGESTION_REQUESTS_PER_MINUTE",
        kind: OptionKind::Count { min: 1, max: 1_000_000 },
        default: "95",
        doc: "At most this many requests start in any 60 seconds. The provider allows 100 a key.",
    },
    OptionSpec {
        name: "requests_per_second",
        env: "DODO_INGESTION_REQUESTS_PER_SECOND",
        kind: OptionKind::Count { min: 1, max: 100_000 },
        default: "9",
        doc: "At most this many requests start in any second. The provider allows 10 a key.",
    },
    OptionSpec {
        name: "request_timeout",
        env: "DODO_INGESTION_REQUEST_TIMEOUT",
        kind: OptionKind::Seconds { min: 0.1, max: 300.0 },
        default: "30",
        doc: "How long one request may take, answer included, before it is tried again.",
    },
    OptionSpec {
        name: "late",
        env: "DODO_INGESTION_LATE",
        kind: OptionKind::Choice(&["restamp", "dead_letter"]),
        default: "restamp",
        doc: "What happens to a call older than 55 minutes: the billing API accepts an hour, of which five minutes are left for the way. restamp: it is billed with the oldest time accepted, and keeps its own as original_timestamp. dead_letter: it is dead-lettered.",
    },
    OptionSpec {
        name: "exit_timeout",
        env: "DODO_INGESTION_EXIT_TIMEOUT",
        kind: OptionKind::Seconds { min: 0.0, max: 300.0 },
        default: "5",
        doc: "How long the natural end of the host program may wait for calls to be billed (a program in Rust calls close instead). What is left stays spooled.",
    },
];

impl OptionSpec {
    /// The option with this name; else a configuration error with the nearest known name.
    pub(crate) fn find(name: &str) -> Result<&'static Self> {
        OPTIONS.iter().find(|spec| spec.name == name).ok_or_else(|| {
            let known = OPTIONS.iter().map(|spec| spec.name);
            Error::configuration(name, format!("unknown option{}", did_you_mean(name, known)))
        })
    }
}

/// `; did you mean "…"?` with the nearest of the known words, or the list of them.
pub(crate) fn did_you_mean<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let nearest = known
        .iter()
        .map(|word| (strsim::jaro_winkler(given, word), word))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, word)) if likeness > 0.75 => format!("; did you mean \"{word}\"?"),
        _ => format!("; one of: {}", known.join(", ")),
    }
}

/// An option's value, as a language or an environment variable gives it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum OptionValue {
    /// Text; also a number (for a duration: seconds), flag or word as an environment variable gives it.
    Text(String),
    /// A whole number. For a duration: of the [`TimeUnit`].
    Integer(i64),
    /// A number. For a duration: of the [`TimeUnit`].
    Number(f64),
    /// True or false.
    Flag(bool),
    /// A duration.
    Duration(Duration),
}

macro_rules! option_value_from {
    ($($from:ty => $variant:ident,)+) => {$(
        impl From<$from> for OptionValue {
            fn from(value: $from) -> Self { Self::$variant(value.into()) }
        }
    )+};
}
option_value_from! {
    &str => Text, String => Text, i64 => Integer, u32 => Integer, f64 => Number, bool => Flag,
    Duration => Duration,
}

/// A configuration word that is one of a few.
macro_rules! choice {
    ($(#[$doc:meta])+ $name:ident { $($(#[$variant_doc:meta])+ $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name { $($(#[$variant_doc])+ $variant,)+ }

        impl $name {
            /// The word for it in every language and environment variable.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The value of a word that was checked against the option's table.
            pub(crate) fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl From<$name> for OptionValue {
            fn from(value: $name) -> Self { Self::Text(value.as_str().into()) }
        }
    };
}

choice! {
    /// Which of the provider's two environments is billed.
    Environment {
        /// Nothing is charged.
        TestMode = "test_mode",
        /// Customers are charged.
        LiveMode = "live_mode",
    }
}

choice! {
    /// What an accepted call survives.
    Durability {
        /// The death of this process: the record is with the operating system.
        Process = "process",
        /// The death of the machine: the record is synced to the disk.
        Disk = "disk",
        /// Nothing: the record is in this process's memory.
        Memory = "memory",
    }
}

choice! {
    /// What becomes of a call that is older than the billing API takes.
    LatePolicy {
        /// It is billed at the oldest time taken, and keeps its own as `original_timestamp`.
        Restamp = "restamp",
        /// It is set aside among the dead letters.
        DeadLetter = "dead_letter",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_of_the_table_is_a_word_of_its_type_and_back() {
        for spec in OPTIONS {
            if let OptionKind::Choice(words) = spec.kind {
                assert!(words.contains(&spec.default), "{}", spec.name);
                for word in words {
                    let back = match spec.name {
                        "environment" => Environment::from_word(word).map(Environment::as_str),
                        "durability" => Durability::from_word(word).map(Durability::as_str),
                        "late" => LatePolicy::from_word(word).map(LatePolicy::as_str),
                        other => panic!("{other}: no type for this choice"),
                    };
                    assert_eq!(back, Some(*word));
                }
            }
        }
    }

    #[test]
    fn an_unknown_option_names_the_nearest() {
        let error = OptionSpec::find("evnt_name").unwrap_err();
        assert_eq!(error.message(), "evnt_name: unknown option; did you mean \"event_name\"?");
        assert!(OptionSpec::find("zzz").unwrap_err().message().contains("one of: api_key, "));
    }
}
