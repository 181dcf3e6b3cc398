//! `dodometer serve`: a local meter server until it is told to stop.
//!
//! Standard output carries only what a caller asked for: where to look, or with `--json` one line
//! for a program to read once requests are taken.

use std::collections::HashSet;
use std::env::VarError;
use std::ffi::OsString;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use clap::builder::{OsStringValueParser, RangedU64ValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use dodometer_server::{
    DEFAULT_MAX_BODY_BYTES, Data, Fault, Listener, Meter, Options, RateLimit, UnknownCustomer,
    duration,
};

use crate::listen::address;
use crate::stop::{Stop, input_closed};
use crate::wrong::WrongArguments;
use crate::{descriptors, file_size};

/// The environment variable of keys.
const KEYS_VARIABLE: &str = "DODOMETER_KEYS";

/// Run a local meter server: the billing API on this machine, with a live page.
#[derive(Args)]
pub(crate) struct Serve {
    /// The address to listen on; port 0 takes a free one. Beyond loopback at least one --key is
    /// needed.
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:4040",
        value_parser = address
    )]
    listen: SocketAddr,

    /// The file that keeps events and meters; `:memory:` keeps them until the server stops.
    #[arg(
        long,
        value_name = "FILE",
        default_value = ":memory:",
        value_parser = OsStringValueParser::new().try_map(data)
    )]
    data: Data,

    /// An API key to take; may be repeated. Without one, those of the environment variable `DODOMETER_KEYS`,
    /// with commas between them. Without either any key is taken, of calls to 127.0.0.1, localhost or the
    /// address itself.
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,

    /// The largest request body taken, in bytes.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = DEFAULT_MAX_BODY_BYTES,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..)
    )]
    max_body_bytes: usize,

    /// The customers that exist, with commas between them, or the file that lists them, one a line: a
    /// value with a `.` or a `/` names a file. Without it, every customer exists.
    #[arg(long, value_name = "FILE|LIST", value_parser = customers)]
    customers: Option<Customers>,

    /// The status that refuses a request with an event of a customer who does not exist.
    #[arg(long, value_name = "STATUS", value_enum, default_value_t = Status::BadRequest)]
    unknown_customer: Status,

    /// Answer with the number of all events of a request, not only of those whose ids are new.
    #[arg(long)]
    count_known_ids: bool,

    /// Forget an id after so long, such as 24h; an event that comes after that counts once more.
    /// Without it, ids are remembered for ever.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    remember_ids: Option<Duration>,

    /// Ignore an event with a known id whatever its age. Without it, one that is too old refuses its
    /// request.
    #[arg(long)]
    id_before_age: bool,

    /// Limit the requests of a key as the billing API does: 100 a minute and 10 a second.
    #[arg(long)]
    rate_limit: bool,

    /// Misbehave on purpose, such as `status=503,share=0.1` or `reset=after_commit,times=3`; may be
    /// repeated. All are described at
    /// <https://github.com/dodopayments/dodo-ingestion/blob/main/docs/dodometer.md#faults>.
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<Fault>,

    /// What the chances of faults are drawn from: the same seed draws the same.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    fault_seed: u64,

    /// Stop when standard input is closed, as it is when the program dies that holds its other end.
    #[arg(long)]
    until_stdin_closes: bool,

    /// Print one line of JSON when ready, for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Clone)]
enum Customers {
    Listed(HashSet<String>),
    InFile(String),
}

#[derive(Clone, Copy, ValueEnum)]
enum Status {
    #[value(name = "400")]
    BadRequest,
    #[value(name = "404")]
    NotFound,
    #[value(name = "422")]
    Unprocessable,
}

impl From<Status> for UnknownCustomer {
    fn from(status: Status) -> Self {
        match status {
            Status::BadRequest => Self::BadRequest,
            Status::NotFound => Self::NotFound,
            Status::Unprocessable => Self::Unprocessable,
        }
    }
}

impl Serve {
    /// Serves until it is told to stop.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        file_size::survive_limit();
        let (named, keys) = if self.keys.is_empty() {
            (KEYS_VARIABLE, keys_of_environment()?)
        } else {
            ("--key", self.keys)
        };
        if !self.listen.ip().is_loopback() && keys.is_empty() {
            bail!(WrongArguments(format!(
                "{} can be reached from other machines: give at least one --key, or listen on a \
                 loopback address such as 127.0.0.1:{}",
                self.listen,
                self.listen.port()
            )));
        }
        // By themselves, so that a refusal has the right name.
        Options { keys: keys.clone(), ..Options::default() }.validate().context(named)?;
        let any_key = keys.is_empty();
        let options = Options {
            data: self.data,
            keys,
            max_body_bytes: self.max_body_bytes,
            customers: self.customers.map(Customers::read).transpose()?,
            unknown_customer: self.unknown_customer.into(),
            count_known_ids: self.count_known_ids,
            remember_ids: self.remember_ids,
            id_before_age: self.id_before_age,
            rate_limit: self.rate_limit.then(RateLimit::default),
            faults: self.faults,
            fault_seed: self.fault_seed,
        };
        options.validate()?;
        descriptors::make_room();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("no runtime could be started")?;
        // Before the data: a start that fails for its address has made and changed no file.
        let listener = runtime.block_on(Listener::bind(self.listen)).map_err(|error| {
            anyhow!("{:#}; give --listen another one", anyhow::Error::from(error))
        })?;
        let meter = Meter::open(options)?;
        let served =
            runtime.block_on(serve(&meter, listener, self.json, any_key, self.until_stdin_closes));
        // Dropped, it would wait for whatever still reads or writes the data.
        runtime.shutdown_background();
        served
    }
}

async fn serve(
    meter: &Meter,
    listener: Listener,
    json: bool,
    any_key: bool,
    until_stdin_closes: bool,
) -> anyhow::Result<()> {
    // Before anybody is told that the server is ready: who waits for that may stop it at once.
    let mut stop = Stop::listen()?;
    let server = listener.serve(meter);
    announce(server.address(), json, any_key).context("cannot write to standard output")?;
    tokio::select! {
        () = stop.asked() => {}
        () = input_closed(), if until_stdin_closes => {}
    }
    server.shutdown().await;
    Ok(())
}

fn keys_of_environment() -> anyhow::Result<Vec<String>> {
    match std::env::var(KEYS_VARIABLE) {
        Ok(list) => Ok(trimmed(list.split(','))),
        Err(VarError::NotPresent) => Ok(Vec::new()),
        // Without what there is, which is secret.
        Err(VarError::NotUnicode(_)) => {
            bail!(WrongArguments(format!("{KEYS_VARIABLE} is not valid Unicode")))
        }
    }
}

fn data(name: OsString) -> Result<Data, &'static str> {
    if name.is_empty() {
        Err("the data file must have a name")
    } else if name == ":memory:" {
        Ok(Data::Memory)
    } else {
        Ok(Data::File(name.into()))
    }
}

fn customers(text: &str) -> Result<Customers, &'static str> {
    if text.contains(['.', '/']) {
        return Ok(Customers::InFile(text.to_owned()));
    }
    let listed: HashSet<String> = trimmed(text.split(','));
    if listed.is_empty() { Err("it names no customer") } else { Ok(Customers::Listed(listed)) }
}

impl Customers {
    fn read(self) -> anyhow::Result<HashSet<String>> {
        let name = match self {
            Self::Listed(customers) => return Ok(customers),
            Self::InFile(name) => name,
        };
        let text = std::fs::read_to_string(&name)
            .with_context(|| format!("the customers cannot be read from {name}"))?;
        // Some editors begin a file with a byte-order mark.
        let customers: HashSet<String> =
            trimmed(text.strip_prefix('\u{feff}').unwrap_or(&text).lines());
        ensure!(!customers.is_empty(), "{name:?} names no customer");
        Ok(customers)
    }
}

fn trimmed<'a, C: FromIterator<String>>(words: impl Iterator<Item = &'a str>) -> C {
    words.map(str::trim).filter(|word| !word.is_empty()).map(ToOwned::to_owned).collect()
}

fn announce(address: SocketAddr, json: bool, any_key: bool) -> std::io::Result<()> {
    let url = format!("http://{}", reachable(address));
    let mut out = std::io::stdout().lock();
    if json {
        let line = serde_json::json!({ "listening": address.to_string(), "url": url });
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "page      {url}/")?;
        writeln!(out, "base URL  {url}")?;
        writeln!(out)?;
        writeln!(out, "Send a program's calls here:")?;
        writeln!(out, "  export DODO_PAYMENTS_BASE_URL={url}")?;
        if any_key {
            writeln!(out, "  export DODO_PAYMENTS_API_KEY=any")?;
        }
    }
    out.flush()
}

/// An address to connect to: one that stands for all addresses of the machine becomes loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
