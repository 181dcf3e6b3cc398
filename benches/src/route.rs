//! What a middleware adds to a request: a route in a server of another language, in a process of its own, with a
//! middleware and without.

use anyhow::{Context as _, Result};

use crate::Plan;
use crate::figures::{Aim, Section, number};
use crate::load::{Latency, PERCENTILES};
use crate::scripts::{self, Contender, Requests, Served};
use crate::sink::{EVENT_ID, Sink};

/// Microseconds that a request may cost more with ours.
const AIM: Aim = Aim::AtMost(15.0);
/// Among those that are compared with the one that has no middleware.
const OURS: usize = 0;

/// Compares the contenders of a script, of which the first has no middleware and the second has ours: how each is
/// called in the tables and by the script. Each is warmed up with so many requests in a full run.
pub(crate) fn compare(
    plan: &Plan,
    name: &'static str,
    what: &str,
    script: &str,
    contenders: &[(&'static str, &'static str)],
    warm_up: u64,
) -> Result<Section> {
    let requests =
        Requests { warm_up: plan.calls(warm_up, 200), measured: plan.calls(20_000, 3_000) };
    let contenders: Vec<Contender> = contenders
        .iter()
        .map(|&(name, argument)| Contender { name, argument, key: EVENT_ID })
        .collect();
    let (without, others) = contenders.split_first().context("nothing is compared")?;
    let mut sink = Sink::start(0)?;
    let mut served: Vec<Vec<[Served; 2]>> = vec![Vec::new(); others.len()];
    for _ in 0..plan.rounds {
        for (index, (contender, served)) in others.iter().zip(&mut served).enumerate() {
            let pair = [without, contender];
            served.push(scripts::serve(plan, script, pair, requests, &mut sink)?);
            if index == OURS {
                sink.counts()?.check(requests.all())?;
            }
        }
    }
    let mut section = Section::new(
        name,
        format!(
            "microseconds of a request to {what}, a real server in a process of its own over one \
             connection that stays open, in turn with one that has no middleware; {} rounds of {} \
             requests, after {} to warm up",
            plan.rounds,
            number(requests.measured as f64),
            number(requests.warm_up as f64)
        ),
    );
    for (index, percentile) in PERCENTILES.into_iter().enumerate() {
        let figure = format!("p{percentile}");
        // The slowest requests tell more of the machine than of a middleware.
        let aim = (percentile == 50).then_some(AIM);
        let mut add = |figure: &str, of: fn(&Served) -> Latency| {
            add(&mut section, &contenders, &served, (figure, aim), |served| of(served)[index]);
        };
        add(&figure, |served| served.paused);
        add(&format!("{figure} back to back"), |served| served.back_to_back);
    }
    add(&mut section, &contenders, &served, ("processor time", Some(AIM)), |served| served.cpu);
    section.note(
        "Each request a millisecond after the answer before it; back to back: at once, so that it waits for what \
         was left to do of the one before. Who asks does not sleep, as the server would have to wake it."
            .into(),
    );
    section
        .note("Seeing the end: a middleware that sees each response end and does nothing.".into());
    section.note(
        "Processor time is that of the server's process with all its threads, deliveries included."
            .into(),
    );
    Ok(section)
}

/// Adds a figure of all contenders, and what each has more of it than the first one beside it.
fn add(
    section: &mut Section,
    contenders: &[Contender],
    served: &[Vec<[Served; 2]>],
    (what, aim): (&str, Option<Aim>),
    figure: impl Fn(&Served) -> f64,
) {
    for (index, rounds) in served.iter().enumerate() {
        let of = |which: usize| rounds.iter().map(|pair| figure(&pair[which])).collect::<Vec<_>>();
        let (without, with) = (of(0), of(1));
        if index == OURS {
            section.row(&format!("{}, {what}", contenders[0].name), "µs", &without);
        }
        let name = contenders[index + 1].name;
        section.row(&format!("{name}, {what}"), "µs", &with);
        let added: Vec<f64> = with.iter().zip(&without).map(|(with, plain)| with - plain).collect();
        let aim = aim.filter(|_| index == OURS);
        section.aimed(&format!("{name}, added to {what}"), "µs", &added, aim);
    }
}
