//! What a middleware adds to a request: a route in a server of another language, in a process of its own, with a
//! middleware and without.

use anyhow::Result;

use crate::Plan;
use crate::figures::{Aim, Section, number};
use crate::load::{self, PERCENTILES};
use crate::scripts::{self, Contender, Served};
use crate::sink::{EVENT_ID, Sink};

/// Microseconds that a request may cost more with ours.
const AIM: Aim = Aim::AtMost(15.0);
const WITHOUT: usize = 0;
const OURS: usize = 1;

/// Compares the contenders of a script, of which the first has no middleware and the second has ours: how each is
/// called in the tables and by the script.
pub(crate) fn compare(
    plan: &Plan,
    name: &'static str,
    what: &str,
    script: &str,
    contenders: &[(&'static str, &'static str)],
) -> Result<Section> {
    let requests = plan.calls(20_000, 3_000);
    let contenders: Vec<Contender> = contenders
        .iter()
        .map(|&(name, argument)| Contender { name, argument, key: EVENT_ID })
        .collect();
    let mut sink = Sink::start(0)?;
    let mut served: Vec<Vec<Served>> = vec![Vec::new(); contenders.len()];
    for _ in 0..plan.rounds {
        for (index, (contender, served)) in contenders.iter().zip(&mut served).enumerate() {
            served.push(scripts::serve(plan, script, contender, requests, &mut sink)?);
            if index == OURS {
                sink.counts()?.check(load::made(1, requests))?;
            }
        }
    }
    let mut section = Section::new(
        name,
        format!(
            "microseconds of a request to {what}, a real server in a process of its own over one \
             connection that stays open; {} rounds of {} requests",
            plan.rounds,
            number(requests as f64)
        ),
    );
    let latencies =
        PERCENTILES.iter().enumerate().map(|(index, percentile)| (format!("p{percentile}"), index));
    for (figure, index) in latencies {
        add(&mut section, &contenders, &served, &figure, |served| served.latency[index]);
    }
    add(&mut section, &contenders, &served, "processor time", |served| served.cpu);
    section.note(
        "Processor time is that of the server's process with all its threads, deliveries included."
            .into(),
    );
    Ok(section)
}

/// Adds a figure of all contenders, and what each has more of it than the first.
fn add(
    section: &mut Section,
    contenders: &[Contender],
    served: &[Vec<Served>],
    what: &str,
    figure: impl Fn(&Served) -> f64,
) {
    let figures: Vec<Vec<f64>> =
        served.iter().map(|rounds| rounds.iter().map(&figure).collect()).collect();
    let without = &figures[WITHOUT];
    for (index, (contender, with)) in contenders.iter().zip(&figures).enumerate() {
        section.row(&format!("{}, {what}", contender.name), "µs", with);
        if index != WITHOUT {
            let added: Vec<f64> =
                with.iter().zip(without).map(|(with, plain)| with - plain).collect();
            // The slowest requests tell more of the machine than of a middleware.
            let aim = (index == OURS && what != "p99").then_some(AIM);
            section.aimed(&format!("{}, added to {what}", contender.name), "µs", &added, aim);
        }
    }
}
