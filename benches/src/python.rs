//! Our Python package beside what users of Python have today.

use anyhow::Result;
use serde::Deserialize;

use crate::Plan;
use crate::figures::{Aim, Section, number};
use crate::route;
use crate::scripts::{self, Contender};
use crate::sink::{Counts, EVENT_ID, Sink};

/// Enough for an interpreter, which compiles nothing.
const WARM_UP: u64 = 1_000;

#[derive(Debug, Deserialize)]
struct Accepted {
    nanoseconds: f64,
    /// Calls, the unmeasured ones included.
    made: u64,
}

const BUILT: Contender =
    Contender { name: "building the event", argument: "build-event", key: EVENT_ID };
const TRACKED: Contender = Contender { name: "track_api_call", argument: "ours", key: EVENT_ID };
const POSTHOG: Contender =
    Contender { name: "posthog capture", argument: "posthog", key: r#""uuid": ""# };
const SEGMENT: Contender =
    Contender { name: "segment track", argument: "segment", key: r#""messageId": ""# };

const TRACKED_CONTENDED: Contender = Contender { argument: "ours-contended", ..TRACKED };
const POSTHOG_CONTENDED: Contender = Contender { argument: "posthog-contended", ..POSTHOG };
const SEGMENT_CONTENDED: Contender = Contender { argument: "segment-contended", ..SEGMENT };

/// So many calls of each, and whether they are delivered.
type Made = (Contender, u64, bool);

/// Nanoseconds that a call of each costs, in each round.
fn costs<const N: usize>(plan: &Plan, contenders: &[Made; N]) -> Result<[Vec<f64>; N]> {
    let mut sink = Sink::start(0)?;
    let mut figures = [const { Vec::new() }; N];
    for _ in 0..plan.rounds {
        for ((contender, calls, delivers), figures) in contenders.iter().zip(&mut figures) {
            let accepted: Accepted =
                scripts::run(plan, "python/accepting.py", contender, *calls, &mut sink)?;
            sink.counts()?.check(if *delivers { accepted.made } else { 0 })?;
            figures.push(accepted.nanoseconds);
        }
    }
    Ok(figures)
}

/// The cheaper of two in each round.
fn cheaper(one: &[f64], other: &[f64]) -> Vec<f64> {
    one.iter().zip(other).map(|(one, other)| one.min(*other)).collect()
}

/// What a call costs the thread that makes it.
pub(crate) fn accepting(plan: &Plan) -> Result<Section> {
    let calls = plan.calls(100_000, 20_000);
    // The queues of the others hold 10,000.
    let queued = plan.calls(8_000, 2_000);
    let contenders = [
        (BUILT, calls, false),
        (POSTHOG, queued, true),
        (SEGMENT, queued, true),
        (TRACKED, calls, true),
    ];
    let [built, posthog, segment, ours] = costs(plan, &contenders)?;
    let cheaper = cheaper(&posthog, &segment);
    let mut section = Section::new(
        "accepting",
        format!(
            "nanoseconds of {} that a call costs its thread in Python, what is called being \
             delivered at the same time; {} rounds of {} calls ({} where they wait in a queue)",
            if plan.cpu { "processor" } else { "wall clock" },
            plan.rounds,
            number(calls as f64),
            number(queued as f64)
        ),
    );
    let reference = (TRACKED.name, &ours[..]);
    section
        .compared(BUILT.name, "ns", &built, reference, None)
        .compared(POSTHOG.name, "ns", &posthog, reference, None)
        .compared(SEGMENT.name, "ns", &segment, reference, None)
        .compared(
            TRACKED.name,
            "ns",
            &ours,
            ("the cheaper of the two", &cheaper),
            Some(Aim::AtMost(0.1)),
        );
    section.note(format!(
        "{}: uuid4, the time as text, and the dictionary. The loop around a call and the making of its \
         metadata are in all four figures.",
        BUILT.name
    ));
    section.note(
        "posthog and segment: with their defaults, sending to the loopback interface on their own \
         threads. Ours has the call in the operating system's hands when it returns; theirs have it in \
         a queue in memory."
            .into(),
    );
    Ok(section)
}

/// The same beside another thread of Python's that computes, which wants the interpreter all the time.
pub(crate) fn contended(plan: &Plan) -> Result<Section> {
    let calls = plan.calls(8_000, 2_000);
    let contenders =
        [POSTHOG_CONTENDED, SEGMENT_CONTENDED, TRACKED_CONTENDED].map(|it| (it, calls, true));
    let [posthog, segment, ours] = costs(plan, &contenders)?;
    let mut section = Section::new(
        "contended",
        format!(
            "nanoseconds of {} that a call costs its thread in Python beside one that computes; {} \
             rounds of {} calls",
            if plan.cpu { "processor" } else { "wall clock" },
            plan.rounds,
            number(calls as f64)
        ),
    );
    section
        .compared(POSTHOG.name, "ns", &posthog, (TRACKED.name, &ours), None)
        .compared(SEGMENT.name, "ns", &segment, (TRACKED.name, &ours), None)
        .compared(
            TRACKED.name,
            "ns",
            &ours,
            ("the cheaper of the two", &cheaper(&posthog, &segment)),
            None,
        );
    section.note(
        "The interpreter goes from one thread to the other when that has wanted it for 5 ms, or when it is \
         let go of."
            .into(),
    );
    Ok(section)
}

#[derive(Debug, Deserialize)]
struct Delivered {
    seconds: f64,
}

/// Calls made and delivered, a second.
pub(crate) fn delivering(plan: &Plan) -> Result<Section> {
    let calls = plan.calls(20_000, 2_000);
    let contenders = [
        Contender { name: "official SDK, 100 by hand", argument: "sdk-100", key: EVENT_ID },
        Contender { name: "official SDK, 1000 by hand", argument: "sdk-1000", key: EVENT_ID },
        TRACKED,
    ];
    let mut sink = Sink::start(0)?;
    let mut rates = contenders.map(|_| Vec::new());
    let mut counts = contenders.map(|_| Counts::default());
    for _ in 0..plan.rounds {
        for ((contender, rates), counts) in contenders.iter().zip(&mut rates).zip(&mut counts) {
            let delivered: Delivered =
                scripts::run(plan, "python/delivering.py", contender, calls, &mut sink)?;
            *counts = sink.counts()?;
            counts.check(calls)?;
            rates.push(calls as f64 / delivered.seconds);
        }
    }
    let mut section = Section::new(
        "delivering",
        format!(
            "calls a second in Python, from the first that is made to the last that is acknowledged, no \
             limit on requests; {} rounds of {} calls",
            plan.rounds,
            number(calls as f64)
        ),
    );
    let [hundreds, thousands, ours] = &rates;
    section
        .row(contenders[0].name, "calls/s", hundreds)
        .row(contenders[1].name, "calls/s", thousands)
        .compared(TRACKED.name, "calls/s", ours, (contenders[1].name, thousands), None);
    for (contender, counts) in contenders.iter().zip(counts) {
        section.note(format!(
            "{}: {} requests of {} calls",
            contender.name,
            number(counts.requests as f64),
            number(counts.calls_per_request())
        ));
    }
    Ok(section)
}

/// A route of FastAPI.
pub(crate) fn fastapi(plan: &Plan) -> Result<Section> {
    route::compare(
        plan,
        "fastapi",
        "a route of FastAPI under uvicorn (uvloop, httptools)",
        "python/fastapi_route.py",
        &[
            ("without", "without"),
            ("with ours", "ours"),
            ("seeing the end", "seeing"),
            ("with Apitally's", "apitally"),
        ],
        WARM_UP,
    )
}
