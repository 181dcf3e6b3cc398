//! Our Node package beside what users of Node have today.

use anyhow::Result;
use serde::Deserialize;

use crate::Plan;
use crate::figures::{Aim, Section, number};
use crate::route;
use crate::scripts::{self, Contender};
use crate::sink::{Counts, EVENT_ID, Sink};

const OURS: Contender = Contender { name: "batch.add", argument: "ours", key: EVENT_ID };
const EXISTING: Contender =
    Contender { name: "ingestion-blueprints", argument: "blueprints", key: EVENT_ID };
const SDK: Contender =
    Contender { name: "official SDK, 1000 by hand", argument: "sdk", key: EVENT_ID };
const BUILDING: Contender =
    Contender { name: "building the events", argument: "build-event", key: EVENT_ID };
const POSTHOG: Contender =
    Contender { name: "posthog-node", argument: "posthog", key: r#""uuid":""# };

/// Until V8 has compiled all that runs for a request: by then its processor time falls no further.
const WARM_UP: u64 = 20_000;

#[derive(Debug, Deserialize)]
struct Added {
    nanoseconds: f64,
    /// Calls, the unmeasured ones included.
    made: u64,
}

/// What a call costs the thread that adds it.
pub(crate) fn adding(plan: &Plan) -> Result<Section> {
    let calls = plan.calls(50_000, 20_000);
    // PostHog's queue holds 1,000, and the existing package opens a connection for each call.
    let few = 700;
    let built = Contender { name: "building the call", argument: "build-call", key: EVENT_ID };
    let contenders = [(built, calls), (POSTHOG, few), (EXISTING, few), (OURS, calls)];
    let mut figures = contenders.map(|_| Vec::new());
    let mut sink = Sink::start(0)?;
    for _ in 0..plan.rounds {
        for ((contender, calls), figures) in contenders.iter().zip(&mut figures) {
            let added: Added = scripts::run(plan, "node/adding.mjs", contender, *calls, &mut sink)?;
            let delivers = contender.argument != built.argument;
            sink.counts()?.check(if delivers { added.made } else { 0 })?;
            figures.push(added.nanoseconds);
        }
    }
    let mut section = Section::new(
        "adding",
        format!(
            "nanoseconds that a call takes of Node's thread, up to the next turn of the event loop; {} \
             rounds of {} calls ({few} of posthog-node and the existing package)",
            plan.rounds,
            number(calls as f64)
        ),
    );
    let [built_figures, posthog, existing, ours] = &figures;
    let reference = (OURS.name, &ours[..]);
    section
        .compared(built.name, "ns", built_figures, reference, None)
        .compared("posthog-node capture", "ns", posthog, reference, None)
        .compared("ingestion-blueprints batch.add", "ns", existing, reference, None)
        .row(OURS.name, "ns", ours);
    section.note(
        "The making of a call's object is in all four figures. What the others leave to later turns of \
         the event loop is not: that is in `delivering`."
            .into(),
    );
    Ok(section)
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Delivered {
    seconds: f64,
    /// In which the event loop did not wait.
    busy_seconds: f64,
    cpu_seconds: f64,
    /// Of resident memory.
    peak_mib: f64,
}

/// What a contender did in a round: what it says itself, what the server counted, and what a process that only builds
/// the events says.
type Round = (Delivered, Counts, Delivered);

fn per_call(seconds: f64, counts: &Counts) -> f64 {
    seconds * 1e9 / counts.events as f64
}

/// A figure: its unit, how it is had, and what ours should be of the existing package's.
type Figure = (&'static str, fn(&Round) -> f64, Option<Aim>);
const FIGURES: [Figure; 5] = [
    ("calls/s", |(it, counts, _)| counts.events as f64 / it.seconds, Some(Aim::AtLeast(100.0))),
    (
        "requests a million calls",
        |(_, counts, _)| counts.requests as f64 * 1e6 / counts.events as f64,
        Some(Aim::AtMost(0.001)),
    ),
    ("ns of Node's thread a call", |(it, counts, _)| per_call(it.busy_seconds, counts), None),
    ("ns of processor a call", |(it, counts, _)| per_call(it.cpu_seconds, counts), None),
    (
        "MiB more than building them",
        |(it, _, building)| it.peak_mib - building.peak_mib,
        Some(Aim::AtMost(0.1)),
    ),
];

/// The whole cost of delivering calls.
pub(crate) fn delivering(plan: &Plan) -> Result<Section> {
    let calls = plan.calls(100_000, 20_000);
    // At its pace, 100,000 would take minutes.
    let few = plan.calls(10_000, 2_000);
    let contenders = [(EXISTING, few), (SDK, calls), (POSTHOG, calls), (OURS, calls)];
    let mut rounds = contenders.map(|_| Vec::new());
    let mut sink = Sink::start(0)?;
    let script = "node/delivering.mjs";
    let mut built = Vec::new();
    for _ in 0..plan.rounds {
        let building: Delivered = scripts::run(plan, script, &BUILDING, calls, &mut sink)?;
        sink.counts()?.check(0)?;
        for ((contender, calls), rounds) in contenders.iter().zip(&mut rounds) {
            let delivered = scripts::run(plan, script, contender, *calls, &mut sink)?;
            let counts = sink.counts()?;
            counts.check(*calls)?;
            rounds.push((delivered, counts, building));
        }
        built.push(building);
    }
    let mut section = Section::new(
        "delivering",
        format!(
            "what it takes to deliver calls from Node, from the first that is made to the last that is \
             acknowledged, no limit on requests; {} rounds of {} calls ({} of the existing package)",
            plan.rounds,
            number(calls as f64),
            number(few as f64)
        ),
    );
    for (unit, figure, aim) in FIGURES {
        let figures = rounds.each_ref().map(|rounds| rounds.iter().map(figure).collect::<Vec<_>>());
        let [existing, sdk, posthog, ours] = &figures;
        let reference = (EXISTING.name, &existing[..]);
        section
            .row(EXISTING.name, unit, existing)
            .compared(SDK.name, unit, sdk, reference, None)
            .compared(POSTHOG.name, unit, posthog, reference, None)
            .compared(OURS.name, unit, ours, reference, aim);
    }
    let built: Vec<f64> = built.iter().map(|building| building.peak_mib).collect();
    section.row("Node, building them", "MiB", &built);
    section.note(
        "ingestion-blueprints: its batch, flushed and waited for after each 100, which is kinder than \
         what it does by itself: a batch that is full is sent without anybody waiting."
            .into(),
    );
    section.note(
        "Node's thread: the time in which its event loop did not wait. Memory: the process's resident \
         memory at its highest."
            .into(),
    );
    Ok(section)
}

/// A route of Express.
pub(crate) fn express(plan: &Plan) -> Result<Section> {
    let contenders = [
        ("without", "express"),
        ("with ours", "express-ours"),
        ("seeing the end", "express-seeing"),
    ];
    route::compare(plan, "express", "a route of Express", "node/route.mjs", &contenders, WARM_UP)
}

/// A route of Fastify.
pub(crate) fn fastify(plan: &Plan) -> Result<Section> {
    let contenders = [
        ("without", "fastify"),
        ("with ours", "fastify-ours"),
        ("seeing the end", "fastify-seeing"),
    ];
    route::compare(plan, "fastify", "a route of Fastify", "node/route.mjs", &contenders, WARM_UP)
}
