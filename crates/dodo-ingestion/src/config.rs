//! Configuration: every option, its environment variable, default, limits and meaning, defined
//! once. Other languages pass options through by name; their documentation, stubs and tables are
//! generated from [`OPTIONS`].
//!
//! A value comes from the argument, else from the environment variable, else from the default.

mod base_url;
mod builder;
mod options;

pub(crate) use base_url::BaseUrl;
pub use builder::Builder;
pub(crate) use builder::{digest, milliseconds_hint};
pub use options::{
    Durability, Environment, LatePolicy, OPTIONS, OptionKind, OptionSpec, OptionValue,
};

use std::path::PathBuf;
use std::time::Duration;

/// A client's configuration, complete and checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) api_key: ApiKey,
    pub(crate) event_name: String,
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
        f.write_str("•••")
    }
}
