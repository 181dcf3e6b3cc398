//! What users have today: one request per call, 100 at a time, as the existing JavaScript package
//! makes them; here with the same HTTP client on both sides, so that the pattern is compared and not
//! the language.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use dodo_ingestion::{Durability, OPTIONS, limits};

use crate::Plan;
use crate::clients::{Ours, bare, post, runtime};
use crate::event::{self, Customers};
use crate::figures::{Section, number};
use crate::sink::{Counts, Sink};

const AT_A_TIME: usize = 100;
/// What the provider allows a key.
const REQUESTS_PER_MINUTE: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(600);
const ONE_BY_ONE: &str = "one request per call, 100 at a time";

pub(crate) fn run(plan: &Plan) -> Result<Section> {
    let calls = plan.calls(20_000, 5_000);
    let mut sink = Sink::start(0)?;
    let customers = Customers::new();
    let bodies = (0..calls)
        .map(|number| event::body(&customers, number..number + 1))
        .collect::<Result<Vec<_>>>()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut counts = (Counts::default(), Counts::default());
    for _ in 0..plan.rounds {
        let (per_second, counted) = one_by_one(&mut sink, &bodies)?;
        theirs.push(per_second);
        counts.0 = counted;
        let (per_second, counted) = spooled(&mut sink, calls, plan)?;
        ours.push(per_second);
        counts.1 = counted;
    }
    let mut section = Section::new(
        "today",
        format!(
            "calls a second from the first to the last acknowledged, no limit on requests; {} \
             rounds of {} calls",
            plan.rounds,
            number(calls as f64)
        ),
    );
    section.row(ONE_BY_ONE, "calls/s", &theirs).compared(
        "accepted, spooled and delivered",
        "calls/s",
        &ours,
        (ONE_BY_ONE, &theirs),
        None,
    );
    let requests = |counts: Counts| number(counts.requests as f64);
    section.note(format!("{ONE_BY_ONE}: {} requests", requests(counts.0)));
    section.note(format!("accepted, spooled and delivered: {} requests", requests(counts.1)));
    let started = default_requests_per_minute()?;
    let most = limits::EVENTS_PER_REQUEST as u64;
    section.note(format!(
        "The provider allows {REQUESTS_PER_MINUTE} requests a minute. At one request per call that \
         is {REQUESTS_PER_MINUTE} calls a minute; ours, which starts at most {started}, can carry \
         {started} × {most} = {} calls a minute.",
        number((started * most) as f64)
    ));
    Ok(section)
}

fn default_requests_per_minute() -> Result<u64> {
    let option = OPTIONS.iter().find(|option| option.name == "requests_per_minute");
    Ok(option.context("no such option")?.default.parse()?)
}

fn one_by_one(sink: &mut Sink, bodies: &[Vec<u8>]) -> Result<(f64, Counts)> {
    sink.forget()?;
    let client = bare(AT_A_TIME)?;
    let url = format!("{}/events/ingest", sink.base_url());
    let next = AtomicUsize::new(0);
    let work = async || -> Result<()> {
        while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
            post(&client, &url, body.clone().into()).await?;
        }
        Ok(())
    };
    let seconds = runtime()?.block_on(async {
        let start = Instant::now();
        futures_util::future::try_join_all((0..AT_A_TIME).map(|_| work())).await?;
        Ok::<_, anyhow::Error>(start.elapsed().as_secs_f64())
    })?;
    let counts = sink.counts()?;
    counts.check(bodies.len() as u64)?;
    Ok((bodies.len() as f64 / seconds, counts))
}

fn spooled(sink: &mut Sink, calls: u64, plan: &Plan) -> Result<(f64, Counts)> {
    sink.forget()?;
    let ours = Ours::open(&sink.base_url(), Durability::Process, &plan.dir)?;
    let start = Instant::now();
    ours.accept(0..calls)?;
    ours.blocking_flush(PATIENCE)?;
    let seconds = start.elapsed().as_secs_f64();
    let counts = sink.counts()?;
    counts.check(calls)?;
    ours.check_all_billed(calls)?;
    Ok((calls as f64 / seconds, counts))
}
