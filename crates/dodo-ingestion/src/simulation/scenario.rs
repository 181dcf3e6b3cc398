//! What kind of run a seed makes.

use fastrand::Rng;

use super::oracle::Bounds;
use super::server::ServerOptions;
use crate::config::{Builder, Config, Durability, LatePolicy};

pub(crate) const KEYS: [&str; 2] = ["sk_first", "sk_second"];
/// Customers that the server does not know have ids that begin with this.
pub(crate) const UNKNOWN: &str = "nobody";

/// What the run is about, besides the everyday trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plot {
    Everyday,
    /// Everything is refused for a while.
    Systemic,
    /// Answers are lost, and then nothing runs, or nothing gets through, for more than a day.
    LongOutage,
    /// There is far too much for the room.
    Full,
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) plot: Plot,
    pub(crate) config: Config,
    pub(crate) bounds: Bounds,
    pub(crate) processes: u32,
    pub(crate) trouble_ms: i64,
    /// How long the calm after the trouble may last until all is delivered.
    pub(crate) calm_ms: i64,
    pub(crate) customers: u32,
    pub(crate) unknown_customers: u32,
    pub(crate) poison: f64,
    pub(crate) failing: f64,
    pub(crate) own_ids: f64,
    pub(crate) twice: f64,
    pub(crate) most_at_once: u32,
    pub(crate) most_padding: usize,
    pub(crate) disk_faults: bool,
    pub(crate) power_loss: bool,
    pub(crate) clock_jumps: bool,
    pub(crate) rot: bool,
    pub(crate) server: ServerOptions,
}

impl Scenario {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let plot = match rng.u8(..10) {
            0 => Plot::Systemic,
            1 | 2 => Plot::LongOutage,
            3 => Plot::Full,
            _ => Plot::Everyday,
        };
        let durability = if rng.u8(..3) == 0 { Durability::Disk } else { Durability::Process };
        let megabyte = 1 << 20;
        let room = match plot {
            Plot::Full => megabyte,
            _ => *rng.choice(&[4 * megabyte, 16 * megabyte, 64 * megabyte]).unwrap_or(&megabyte),
        };
        // Where dead letters have no room, what is too old would come to no end.
        let sets_aside = rng.u8(..4) == 0 && plot != Plot::Full;
        let late = if sets_aside { LatePolicy::DeadLetter } else { LatePolicy::Restamp };
        let mut builder = Builder::new()
            .api_key(KEYS[0])
            .event_name("api_call")
            .durability(durability)
            .late(late)
            .max_spool_bytes(room);
        builder = builder.base_url("http://127.0.0.1:1").account("a");
        let config = builder.config(|_| None).expect("a right configuration");
        let few = |rng: &mut Rng, most: f64| if rng.u8(..3) == 0 { rng.f64() * most } else { 0.0 };
        let systemic = plot == Plot::Systemic;
        let processes = rng.u32(1..5);
        let trouble_ms = rng.i64(15_000..120_000);
        let customers = if systemic { rng.u32(12..40) } else { rng.u32(1..30) };
        let unknown_customers = match plot {
            Plot::Systemic => [0, 10][usize::from(customers % 3 == 0)],
            _ => [0, 0, 0, 1, 3][rng.usize(..5)],
        };
        Self {
            plot,
            bounds: Bounds {
                per_minute: config.namespace.requests_per_minute as usize,
                per_second: config.namespace.requests_per_second as usize,
                disk_bytes: room,
                // When only unknown customers are left, that is told from a refusal of everything by
                // nobody, and their calls are kept.
                letters_fit: plot != Plot::Full && unknown_customers < 8,
                late_is_set_aside: late == LatePolicy::DeadLetter,
            },
            config,
            processes,
            trouble_ms,
            calm_ms: 8 * 60 * 60_000,
            customers,
            unknown_customers,
            poison: if systemic { 0.0 } else { few(rng, 0.01) },
            failing: if systemic { 0.0 } else { few(rng, 0.003) },
            own_ids: rng.f64(),
            twice: few(rng, 0.05),
            most_at_once: match plot {
                Plot::Full => 60,
                _ => *rng.choice(&[1, 4, 16]).unwrap_or(&1),
            },
            most_padding: if plot == Plot::Full { 400 } else { [0, 20, 400][rng.usize(..3)] },
            disk_faults: rng.bool(),
            power_loss: rng.u8(..4) == 0,
            clock_jumps: rng.u8(..4) == 0,
            rot: rng.u8(..4) == 0,
            server: ServerOptions {
                unknown_customer_status: *rng.choice(&[400, 404, 422]).unwrap_or(&400),
                counts_known: rng.bool(),
                remembers_ms: rng.bool().then_some(24 * 60 * 60_000),
                age_before_id: rng.bool(),
                max_body: *rng.choice(&[1 << 20, 256 << 10, 16 << 10]).unwrap_or(&(1 << 20)),
                keys: [KEYS[0].to_owned()].into(),
                // Where nothing is ever taken, that is an outage, and all is kept.
                failing_customers: (!systemic && customers > 1 && trouble_ms % 5 == 0)
                    .then(|| "cus_0".to_owned())
                    .into_iter()
                    .collect(),
                failing_status: if trouble_ms % 2 == 0 { 403 } else { 500 },
                unknown_customers: [UNKNOWN.to_owned()].into(),
                refusal_status: if unknown_customers == 0 && trouble_ms % 3 == 0 {
                    413
                } else {
                    400
                },
                skew_ms: [0, 0, 2_000, -400_000, 5_000_000][rng.usize(..5)],
                ..ServerOptions::default()
            },
        }
    }
}
