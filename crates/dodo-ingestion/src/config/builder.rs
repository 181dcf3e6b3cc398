//! From arguments, environment variables and defaults to a checked configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{
    ApiKey, BaseUrl, Config, Durability, Environment, LatePolicy, NamespaceConfig, OptionKind,
    OptionSpec, OptionValue, TimeUnit, given::Given,
};
use crate::alarm::{Alarm, AlarmCallback};
use crate::error::{Error, HIDDEN, Result};
use crate::ingestion::Ingestion;
use crate::validate;

/// Collects options and builds an [`Ingestion`]. Every option of [`OPTIONS`](crate::OPTIONS) has a method here.
#[derive(Clone, Default)]
pub struct Builder {
    values: BTreeMap<&'static str, OptionValue>,
    variables: Option<BTreeMap<String, String>>,
    unit: TimeUnit,
    on_alarm: Option<AlarmCallback>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, value) in &self.values {
            match OptionSpec::find(name).map(|spec| spec.kind) {
                Ok(OptionKind::Secret) => map.entry(name, &HIDDEN),
                _ => map.entry(name, value),
            };
        }
        map.finish()
    }
}

macro_rules! typed_options {
    ($($(#[$doc:meta])+ $name:ident: $type:ty,)+) => {$(
        $(#[$doc])+
        pub fn $name(mut self, value: impl Into<$type>) -> Self {
            self.values.insert(stringify!($name), OptionValue::from(value.into()));
            self
        }
    )+};
}

impl Builder {
    /// A builder with nothing set: the environment and the defaults decide.
    pub fn new() -> Self {
        Self::default()
    }

    typed_options! {
        /// The billing API's secret key.
        api_key: String,
        /// Which of the provider's two environments is billed.
        environment: Environment,
        /// Where the billing API is; wins over the environment's own address.
        base_url: String,
        /// The event name of calls that do not bring their own.
        event_name: String,
        /// A name for the business that is billed.
        account: String,
        /// Network file systems that `spool_dir` may be on.
        allow_filesystem: String,
        /// What an accepted call survives.
        durability: Durability,
        /// How long a single call may wait for others to share its request.
        linger: Duration,
        /// Whether `base_url` may be plain http to another host.
        allow_http: bool,
        /// At most this many requests start in any 60 seconds.
        requests_per_minute: u32,
        /// At most this many requests start in any second.
        requests_per_second: u32,
        /// How long one request may take.
        request_timeout: Duration,
        /// What becomes of a call that is older than the billing API takes.
        late: LatePolicy,
        /// How long the natural end of the host program may wait for calls to be billed.
        exit_timeout: Duration,
    }

    /// The directory under which accepted calls are kept until they are billed.
    pub fn spool_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        let text = directory.into().to_string_lossy().into_owned();
        self.values.insert("spool_dir", OptionValue::Text(text));
        self
    }

    /// How much disk the calls of one account may take, in bytes.
    pub fn max_spool_bytes(mut self, bytes: u64) -> Self {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.values.insert("max_spool_bytes", OptionValue::Integer(bytes));
        self
    }

    /// Sets an option by its name, for language bindings and configuration files.
    ///
    /// # Errors
    /// `configuration` when there is no such option; the message names the nearest.
    pub fn set(&mut self, name: &str, value: impl Into<OptionValue>) -> Result<&mut Self> {
        self.values.insert(OptionSpec::find(name)?.name, value.into());
        Ok(self)
    }

    /// The environment variables that options are looked up in, for a host that gives code an environment of
    /// its own, as Node does to a worker. By default those of the process.
    pub fn variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.variables = Some(variables.into_iter().collect());
        self
    }

    /// The unit of bare numbers that are lengths of time, for the bindings of languages that do not
    /// count in seconds. Environment variables are in seconds everywhere.
    pub fn time_unit(mut self, unit: TimeUnit) -> Self {
        self.unit = unit;
        self
    }

    /// Called for each [`Alarm`], on the engine's thread or on that of a track verb. It must not
    /// block.
    pub fn on_alarm(mut self, callback: impl Fn(&Alarm) + Send + Sync + 'static) -> Self {
        self.on_alarm = Some(Arc::new(callback));
        self
    }

    /// Checks the options and opens the client.
    ///
    /// # Errors
    /// `configuration` when an option is missing or wrong, or conflicts with another client of the
    /// same account in this process; `storage` when the spool directory cannot be used.
    pub fn build(self) -> Result<Ingestion> {
        let env = |name: &str| match &self.variables {
            Some(variables) => variables.get(name).cloned(),
            // What is no text there is found to be none with the option.
            None => Some(std::env::var_os(name)?.to_string_lossy().into_owned()),
        };
        let config = self.config(env)?;
        Ingestion::open(config, self.on_alarm)
    }

    pub(crate) fn config(&self, env: impl Fn(&str) -> Option<String>) -> Result<Config> {
        let given = Given { arguments: &self.values, env: &env, unit: self.unit };
        Self::checked(&given).map_err(|error| given.with_origin(error))
    }

    fn checked(given: &Given<'_, impl Fn(&str) -> Option<String>>) -> Result<Config> {
        let api_key = given.required("api_key")?;
        // Nothing is cut off: a key that was copied wrong may be wrong elsewhere as well.
        if !api_key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::configuration(
                "api_key",
                "holds white space, a control character or one that is not ASCII, which no key \
                 does; copy the key again",
            ));
        }
        // Given for another option by mistake, it would be repeated as that one's wrong value.
        Self::with_key(given, api_key.clone()).map_err(|error| error.without(&api_key))
    }

    fn with_key(
        given: &Given<'_, impl Fn(&str) -> Option<String>>,
        api_key: String,
    ) -> Result<Config> {
        let environment = given.choice("environment", Environment::from_word)?;
        let allow_http = given.flag("allow_http")?;
        let address = given.text("base_url")?;
        let environment_by_default = address.is_none() && !given.is_given("environment")?;
        let base_url = match address {
            Some(text) => BaseUrl::parse(&text, environment, allow_http)?,
            None => BaseUrl::of(environment)?,
        };
        let event_name = given.required("event_name")?;
        validate::event_name(&event_name).map_err(Error::of_configuration)?;
        let account = match given.text("account")? {
            Some(name) => check_account(name)?,
            None => digest(&api_key),
        };
        Ok(Config {
            event_name,
            time_unit: given.unit,
            environment_by_default,
            linger: given.duration("linger")?,
            exit_timeout: given.duration("exit_timeout")?,
            namespace: NamespaceConfig {
                environment,
                base_url,
                account,
                spool_dir: given.text("spool_dir")?.as_deref().map(absolute).transpose()?,
                allow_filesystem: given.text("allow_filesystem")?.unwrap_or_default(),
                durability: given.choice("durability", Durability::from_word)?,
                max_spool_bytes: given.count("max_spool_bytes")?,
                requests_per_minute: given.count("requests_per_minute")? as u32,
                requests_per_second: given.count("requests_per_second")? as u32,
                request_timeout: given.duration("request_timeout")?,
                late: given.choice("late", LatePolicy::from_word)?,
            },
            api_key: ApiKey(api_key),
        })
    }
}

/// Twelve hexadecimal digits of the SHA-256 of a text.
pub(crate) fn digest(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref()[..6].iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// So that it stays where it is when the host goes to another directory, as a daemon does.
fn absolute(directory: &str) -> Result<PathBuf> {
    if directory == "~" || directory.starts_with("~/") {
        let message =
            format!("{directory:?} is no path outside of a shell; write the home directory out");
        return Err(Error::configuration("spool_dir", message));
    }
    std::path::absolute(directory).map_err(|error| {
        Error::configuration("spool_dir", format!("{directory:?} has no absolute path: {error}"))
    })
}

fn check_account(name: String) -> Result<String> {
    let fits = (1..=40).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if fits {
        return Ok(name);
    }
    Err(Error::configuration("account", format!("{name:?} is not 1 to 40 letters, digits, - or _")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> Builder {
        Builder::new().api_key("sk_secret_canary").event_name("api_call")
    }

    fn no_env(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn defaults_are_those_of_the_table_and_all_are_valid() {
        let config = builder().config(no_env).unwrap();
        assert_eq!(config.namespace.environment, Environment::TestMode);
        assert_eq!(config.namespace.base_url.to_string(), "https://test.dodopayments.com");
        assert_eq!(config.namespace.requests_per_minute, 95);
        assert_eq!(config.namespace.requests_per_second, 9);
        assert_eq!(config.namespace.max_spool_bytes, 1 << 30);
        assert_eq!(config.linger, Duration::from_secs(1));
        assert_eq!(config.namespace.account.len(), 12);
    }

    #[test]
    fn the_argument_wins_over_the_environment_and_that_over_the_default() {
        let env = |name: &str| match name {
            "DODO_INGESTION_LINGER" => Some("0.25".to_owned()),
            "DODO_PAYMENTS_API_KEY" => Some("from_env".to_owned()),
            "DODO_INGESTION_EVENT_NAME" => Some(String::new()),
            _ => None,
        };
        assert_eq!(builder().config(env).unwrap().linger, Duration::from_millis(250));
        let argument = builder().linger(Duration::from_secs(2));
        assert_eq!(argument.config(env).unwrap().linger, Duration::from_secs(2));
        let from_env = Builder::new().event_name("x").config(env).unwrap();
        assert_eq!(from_env.api_key.expose(), "from_env");
        let empty = crate::Ingestion::builder("").event_name("x").config(env).unwrap();
        assert_eq!(empty.api_key.expose(), "from_env");
        for name in ["api_key", "base_url", "event_name", "account", "spool_dir"] {
            let env = |variable: &str| {
                let spec = crate::OPTIONS.iter().find(|spec| spec.env == variable)?;
                match spec.name {
                    "base_url" => Some("http://127.0.0.1:4040".to_owned()),
                    "spool_dir" => Some("/from_env".to_owned()),
                    "api_key" | "event_name" | "account" => Some("from_env".to_owned()),
                    _ => None,
                }
            };
            let mut empty = Builder::new();
            empty.set(name, OptionValue::from("")).unwrap();
            let (empty, unset) = (empty.config(env).unwrap(), Builder::new().config(env).unwrap());
            assert_eq!(format!("{empty:?}"), format!("{unset:?}"), "{name}");
        }
        let error = Builder::new().config(env).err().unwrap();
        assert_eq!(error.field(), Some("event_name"));
        assert!(error.message().contains("DODO_INGESTION_EVENT_NAME"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_named_with_the_nearest_right_one() {
        for (name, value, expected) in [
            ("environment", OptionValue::from("live"), "did you mean \"live_mode\"?"),
            ("environment", OptionValue::from(3_i64), "unknown value"),
            ("durability", "dsk".into(), "did you mean \"disk\"?"),
            ("linger", 5000_i64.into(), "for 5000 milliseconds use 5.0"),
            ("linger", f64::NAN.into(), "0 to 300 seconds, not NaN"),
            ("linger", (-1.0).into(), "not -1"),
            ("linger", "soon".into(), "not \"soon\""),
            ("max_spool_bytes", 5_i64.into(), "from 1048576 to"),
            ("requests_per_minute", 0_i64.into(), "from 1 to"),
            ("allow_http", "maybe".into(), "true or false"),
            ("account", "a/b".into(), "letters, digits"),
            ("api_key", " sk".into(), "white space"),
            ("api_key", "sk\n".into(), "white space"),
            ("api_key", "sk a".into(), "white space"),
            ("api_key", "sk_\u{7f}".into(), "control character"),
            ("api_key", "schlüssel".into(), "not ASCII"),
            ("api_key", "".into(), "is required"),
            ("event_name", "".into(), "is required"),
            ("base_url", true.into(), "must be text"),
            ("spool_dir", "/a\0b".into(), "NUL"),
            ("spool_dir", "~/spool".into(), "write the home directory out"),
            ("spool_dir", "/caf\u{fffd}".into(), "UTF-8"),
            ("account", "a\u{fffd}".into(), "UTF-8"),
        ] {
            let mut builder = builder();
            builder.set(name, value.clone()).unwrap();
            let error = builder.config(no_env).err().unwrap_or_else(|| panic!("{name}={value:?}"));
            assert!(error.message().contains(expected), "{name}={value:?}: {error}");
            assert_eq!(error.field(), Some(name));
            assert_eq!(error.kind(), crate::ErrorKind::Configuration);
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_directory_whose_name_is_no_text_is_not_taken_for_another() {
        use std::os::unix::ffi::OsStrExt as _;
        let directory = std::ffi::OsStr::from_bytes(b"/caf\xe9");
        let error = builder().spool_dir(directory).config(no_env).err().unwrap();
        assert_eq!(error.field(), Some("spool_dir"));
        assert!(error.message().contains("UTF-8"), "{error}");
    }

    #[test]
    fn a_language_that_counts_in_milliseconds_is_told_in_milliseconds() {
        let millis = |name: &str, value: OptionValue| {
            let mut builder = builder().time_unit(TimeUnit::Milliseconds);
            builder.set(name, value).unwrap();
            builder
        };
        let config = millis("linger", 250_i64.into()).config(no_env).unwrap();
        assert_eq!(config.linger, Duration::from_millis(250));
        let config = millis("linger", 0.5.into()).config(no_env).unwrap();
        assert_eq!(config.linger, Duration::from_micros(500));
        let config = millis("linger", "250".into()).config(no_env).unwrap();
        assert_eq!(config.linger, Duration::from_millis(250));
        let error = millis("request_timeout", 5_000_000_i64.into()).config(no_env).err().unwrap();
        let expected = "request_timeout: must be 100 to 300000 milliseconds, not 5000000";
        assert_eq!(error.message(), expected);

        let env = |name: &str| (name == "DODO_INGESTION_LINGER").then(|| "5000".to_owned());
        let builder = builder().time_unit(TimeUnit::Milliseconds);
        let error = builder.config(env).err().unwrap();
        assert!(error.message().contains("0 to 300 seconds, not \"5000\""), "{error}");
    }

    #[test]
    fn a_host_may_have_environment_variables_of_its_own() {
        let error = builder().variables([("DODO_INGESTION_LATE".into(), "drop".into())]).build();
        assert_eq!(error.unwrap_err().field(), Some("late"));
    }

    #[test]
    fn a_value_from_the_environment_names_its_variable() {
        let long = "n".repeat(256);
        for (variable, value, field, message) in [
            ("DODO_INGESTION_LATE", "drop", "late", "unknown value \"drop\""),
            (
                "DODO_INGESTION_ALLOW_HTTP",
                "TRUE",
                "allow_http",
                "must be true or false, not \"TRUE\"",
            ),
            ("DODO_PAYMENTS_BASE_URL", "ftp://x", "base_url", "begins with ftp:"),
            ("DODO_INGESTION_EVENT_NAME", &long, "event_name", "256 characters"),
        ] {
            let env = |name: &str| match name {
                _ if name == variable => Some(value.to_owned()),
                "DODO_INGESTION_EVENT_NAME" => Some("api_call".to_owned()),
                _ => None,
            };
            let error = Builder::new().api_key("sk_1").config(env).err().unwrap();
            let expected = format!("{field} (from {variable}): {message}");
            assert!(error.message().starts_with(&expected), "{error}");
            assert_eq!(error.field(), Some(field));
        }
    }

    #[test]
    fn the_key_is_not_shown() {
        let builder = builder();
        assert!(!format!("{builder:?}").contains("canary"));
        let config = builder.config(no_env).unwrap();
        assert!(!format!("{:?}", config.api_key).contains("canary"));
        assert!(!config.namespace.account.contains("canary"));
    }
}
