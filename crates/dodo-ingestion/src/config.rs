//! Configuration: every option, its environment variable, default, limits and meaning, defined
//! once. Other languages pass options through by name; their documentation, stubs and tables are
//! generated from [`OPTIONS`].
//!
//! A value comes from the argument, else from the environment variable, else from the default.

mod base_url;
mod builder;
mod given;
mod options;

pub(crate) use base_url::BaseUrl;
pub use builder::Builder;
pub(crate) use builder::digest;
pub use options::{
    Durability, Environment, LatePolicy, OPTIONS, OptionKind, OptionSpec, OptionValue, TimeUnit,
};

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::error::HIDDEN;

/// A client's configuration, complete and checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) api_key: ApiKey,
    pub(crate) event_name: String,
    pub(crate) time_unit: TimeUnit,
    /// Neither the environment nor an address was chosen.
    pub(crate) environment_by_default: bool,
    pub(crate) linger: Duration,
    pub(crate) exit_timeout: Duration,
    pub(crate) namespace: NamespaceConfig,
}

/// The part of the configuration that all clients of one namespace share in a process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NamespaceConfig {
    pub(crate) environment: Environment,
    pub(crate) base_url: BaseUrl,
    pub(crate) account: String,
    pub(crate) spool_dir: Option<PathBuf>,
    pub(crate) allow_filesystem: String,
    pub(crate) durability: Durability,
    pub(crate) max_spool_bytes: u64,
    pub(crate) requests_per_minute: u32,
    pub(crate) requests_per_second: u32,
    pub(crate) request_timeout: Duration,
    pub(crate) late: LatePolicy,
}

impl NamespaceConfig {
    /// The options that all processes of a namespace should have alike: they share one spool
    /// directory and one sender.
    pub(crate) fn shared(&self) -> [(&'static str, Value); 7] {
        [
            ("base_url", self.base_url.to_string().into()),
            ("durability", self.durability.as_str().into()),
            ("max_spool_bytes", self.max_spool_bytes.into()),
            ("requests_per_minute", self.requests_per_minute.into()),
            ("requests_per_second", self.requests_per_second.into()),
            ("request_timeout", self.request_timeout.as_secs_f64().into()),
            ("late", self.late.as_str().into()),
        ]
    }
}

/// The API key. Formats as dots.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ApiKey(String);

impl ApiKey {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn for_test(key: &str) -> Self {
        Self(key.to_owned())
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(HIDDEN)
    }
}
