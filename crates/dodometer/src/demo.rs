//! `dodometer demo`: the whole at work on one machine, and the bill that comes of it.
//!
//! A meter runs in this process, and an API that is metered by the client library runs here or in
//! worker processes; real HTTP requests are driven at the API, and at the end the meter is asked, over
//! HTTP, what it would bill. The demo succeeds only if that is every call that was accepted, once, but for
//! those that the API failed on: these are stored as errors and not billed.

mod api;
mod billing;
mod customers;
mod http;
mod outage;
mod report;
mod screen;
mod staff;
mod traffic;
mod worker;
mod workers;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use dodo_ingestion::{Durability, Environment, Ingestion};
use dodometer_server::{Meter, Options, Server};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

use self::billing::{API_KEY, Billing, CENTS_A_CALL, EVENT_NAME};
use self::http::Http;
use self::outage::Outage;
use self::report::Report;
use self::screen::{Progress, Screen};
use self::staff::{Staff, listed};
use self::traffic::{Targets, Traffic};
use self::workers::Workers;
use crate::duration;
use crate::file_size;
use crate::listen::address;
use crate::stop::Stop;

pub(crate) use self::worker::DemoWorker;

/// How long the last calls may take to be billed. After an outage the client may wait for up to a
/// minute before it tries again.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(90);
/// Calls a second while somebody is looking at the page.
const GENTLE_RATE: u32 = 3;
/// The longest outage that is acted out.
const LONGEST_OUTAGE: Duration = Duration::from_secs(600);
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Show it all at work: a metered API under load, a local meter, and the exact bill.
///
/// Runs a local meter and a small API of three customers, drives HTTP requests at the API, and
/// prints the bill that the meter makes of them. On a terminal it then goes on gently until Ctrl-C,
/// for the live page to be looked at.
#[derive(Args)]
#[command(after_help = "\
Exit status: 0 when every accepted call was billed once, 1 when not or when something failed, \
2 when the arguments are wrong.")]
pub(crate) struct Demo {
    /// The address of the meter and its page, on this machine; port 0 takes a free one.
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:0",
        value_parser = loopback
    )]
    listen: SocketAddr,

    /// How long the load lasts.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 10,
        value_parser = RangedU64ValueParser::<u64>::new().range(1..=3600)
    )]
    seconds: u64,

    /// How many calls a second to make.
    #[arg(
        long,
        value_name = "CALLS",
        default_value_t = 500,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    rate: u32,

    /// Take the meter away for so long in the middle of the load, such as 3s or 500ms.
    #[arg(long, value_name = "DURATION", value_parser = outage_length)]
    outage: Option<Duration>,

    /// Serve the API with so many processes that share one spool directory, not with the demo's own.
    #[arg(long, value_name = "NUMBER", value_parser = RangedU64ValueParser::<usize>::new().range(1..=32))]
    workers: Option<usize>,

    /// Kill a worker with SIGKILL in the middle of the load, and start another in its place.
    #[arg(long, requires = "workers")]
    kill: bool,

    /// End with one line of JSON, for programs.
    #[arg(long)]
    json: bool,
}

impl Demo {
    /// Runs the demo to its end.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        file_size::survive_limit();
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("no runtime could be started")?
            .block_on(self.stage())
    }

    /// Sets everything up, lets the show run, and clears everything away, whatever came of it.
    async fn stage(self) -> anyhow::Result<()> {
        let stop = Stop::listen()?;
        let screen = Screen::new();
        let meter = Meter::open(Options::default())?;
        let server = Server::start(&meter, self.listen).await?;
        let address = server.address();
        screen.heading(&format!("page      http://{address}/"))?;

        let http = Http::new();
        let billing = Billing::open(http.clone(), address).await;
        let billing = billing.context("the meter cannot be set up")?;
        let spool = tempfile::Builder::new().prefix("dodometer-demo-").tempdir();
        let spool = spool.context("cannot make a directory for the spool")?;
        let (notes, heard) = mpsc::unbounded_channel();
        let mut staff = match self.workers {
            None => Staff::here(client(address, spool.path(), notes.clone())?),
            Some(number) => {
                Staff::Workers(Workers::new(number, address, spool.path(), notes.clone()))
            }
        };
        let targets = Targets::default();
        staff.open(&targets).await?;
        let urls = listed(&targets.all());
        screen.say(&format!("API       {urls}  ({CENTS_A_CALL} cents a call)"))?;
        let (ending, _) = watch::channel(false);
        let traffic = Traffic::new(http, targets, ending.subscribe());

        let json = self.json;
        let mut show = Show { screen, stop, heard, notes, ending, meter, traffic, billing, json };
        let shown = self.run_show(&mut show, &mut staff, server).await;
        let closed = staff.leave().await;
        drop(show);
        clear_away(&spool).await;
        shown?;
        closed
    }

    async fn run_show(
        &self,
        show: &mut Show,
        staff: &mut Staff,
        server: Server,
    ) -> anyhow::Result<()> {
        let load = Duration::from_secs(self.seconds);
        let (traffic, meter, notes) =
            (show.traffic.clone(), show.meter.clone(), show.notes.clone());
        let (ending, also_ending) = (show.ending.subscribe(), show.ending.subscribe());
        let outage = async {
            match self.outage {
                None => Ok(server),
                Some(length) => {
                    Outage::amid(load, length).strike(&meter, server, ending, &notes).await
                }
            }
        };
        let kill = async {
            match staff {
                Staff::Workers(workers) if self.kill => {
                    workers.kill_one(load, traffic.targets(), also_ending).await
                }
                _ => Ok(()),
            }
        };
        let work = async { tokio::join!(traffic.run(self.rate, Some(load)), outage, kill) };
        let calls = u64::from(self.rate) * self.seconds;
        let ((), server, killed) = show.attend(Some(calls), work).await?;
        let server = server.context("the meter did not come back")?;
        killed?;
        show.settle(staff).await?;

        if !self.json && Screen::is_terminal() && !*show.ending.borrow() {
            show.screen.say("\nA few calls a second go on for the page; Ctrl-C ends the demo.")?;
            staff.open(show.traffic.targets()).await?;
            let traffic = show.traffic.clone();
            show.attend(None, traffic.run(GENTLE_RATE, None)).await?;
            show.settle(staff).await?;
        }
        server.shutdown().await;
        Ok(())
    }
}

/// The client library, as a program would use it. What is not said here is left to its defaults
/// and to its environment variables; the demo looks for what a killed worker left in its spool.
fn client(
    meter: SocketAddr,
    spool: &Path,
    alarms: mpsc::UnboundedSender<String>,
) -> anyhow::Result<Ingestion> {
    Ingestion::builder(API_KEY)
        .environment(Environment::TestMode)
        .base_url(format!("http://{meter}"))
        .event_name(EVENT_NAME)
        .spool_dir(spool)
        .durability(Durability::Process)
        .on_alarm(move |alarm| {
            // Nobody listens any more once the demo is over.
            let _ = alarms.send(format!("the client says {alarm}"));
        })
        .build()
        .context("the client cannot be built")
}

/// Removes the spool. The client's engine lets go of it a moment after it is closed, and until then
/// may put something back.
async fn clear_away(spool: &TempDir) {
    for _ in 0..20 {
        if std::fs::remove_dir_all(spool.path()).is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tracing::warn!("{} could not be removed", spool.path().display());
}

/// What goes on while somebody watches.
struct Show {
    screen: Screen,
    stop: Stop,
    /// Lines to show as they come.
    heard: mpsc::UnboundedReceiver<String>,
    notes: mpsc::UnboundedSender<String>,
    ending: watch::Sender<bool>,
    meter: Meter,
    traffic: Traffic,
    billing: Billing,
    json: bool,
}

impl Show {
    /// Shows progress until the work is done. The first request to stop asks it to end, the second
    /// leaves it.
    async fn attend<T>(
        &mut self,
        calls: Option<u64>,
        work: impl Future<Output = T>,
    ) -> anyhow::Result<T> {
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        tokio::pin!(work);
        self.screen.begin(calls)?;
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                Some(note) = self.heard.recv() => self.screen.notice(&note)?,
                _ = ticks.tick() => {
                    self.screen.progress(&self.progress());
                }
                () = self.stop.asked() => if self.ending.send_replace(true) {
                    bail!("stopped before every call was billed");
                }
            }
        };
        self.screen.end();
        while let Ok(note) = self.heard.try_recv() {
            self.screen.notice(&note)?;
        }
        Ok(done)
    }

    fn progress(&self) -> Progress {
        let totals = self.meter.bill().totals;
        let answered = self.traffic.counts().answered();
        Progress { answered, metered: totals.calls, requests: totals.requests }
    }

    /// Waits until everything is billed, then shows the bill and whether it is right.
    async fn settle(&mut self, staff: &mut Staff) -> anyhow::Result<()> {
        let targets = self.traffic.targets().clone();
        let closed = self.attend(None, staff.close(&targets)).await?;
        let account = staff.account(&self.meter, self.traffic.counts())?;
        let bill = self.billing.bill().await.context("the meter's bill cannot be had")?;
        let report = Report::new(account, bill);
        report.show(&self.screen)?;
        let verdict = closed
            .context("not every call is billed")
            .and_then(|()| report.check(self.traffic.counts()));
        if verdict.is_ok() {
            self.screen.success("every accepted call is billed, once; errors are not billed")?;
        }
        if self.json {
            self.screen.say(&report.json()?)?;
        }
        verdict
    }
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address = address(text)?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("the demo takes any key, so that only addresses of this machine will do".to_owned())
    }
}

fn outage_length(text: &str) -> Result<Duration, String> {
    Some(duration::parse(text)?)
        .filter(|length| *length <= LONGEST_OUTAGE)
        .ok_or_else(|| format!("must be at most {LONGEST_OUTAGE:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_ends() {
        assert_eq!(outage_length("10m"), Ok(LONGEST_OUTAGE));
        assert!(outage_length("11m").is_err() && outage_length("3").is_err());
    }

    #[test]
    fn the_meter_listens_to_this_machine_only() {
        assert!(loopback("127.0.0.1:0").is_ok() && loopback("[::1]:4040").is_ok());
        assert!(loopback("0.0.0.0:0").is_err() && loopback("127.0.0.1").is_err());
    }
}
