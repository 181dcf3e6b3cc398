//! The faults under way, and what they do to a request.
//!
//! Each fault sees the requests of its route in their order. Those that change how a request is
//! handled add up. Of those that end one, the first that strikes takes it, and the ones after it do not see
//! it: so they take their turns, and a list of them is a script. Each draws from a random sequence of its
//! own, made from the seed and its place, so that a run repeats. There is no I/O here and no clock.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{Count, Fault, Kind, Route, Stage, What};
use crate::RateLimit;
use crate::limit::Limiter;

/// The most faults at a time.
pub(crate) const MAX_FAULTS: usize = 100;

/// The faults of a meter.
pub(crate) struct Faults {
    given: Vec<Fault>,
    seed: u64,
    state: Mutex<State>,
}

struct State {
    seed: u64,
    set: u64,
    active: Vec<Active>,
}

struct Active {
    fault: Fault,
    random: Rng,
    limiter: Option<Limiter>,
    seen: u64,
    struck: u64,
    /// When it struck first.
    since: Option<Instant>,
}

/// A request that faults may strike.
pub(crate) struct Asked<'a> {
    pub(crate) route: Route,
    pub(crate) key: &'a str,
    pub(crate) body: &'a [u8],
    pub(crate) now: Instant,
}

/// What becomes of a request.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) delay: Duration,
    pub(crate) bend: Bend,
    pub(crate) end: Option<End>,
    /// How many more requests the key may make, where a fault limits them.
    pub(crate) remaining: Option<u32>,
}

/// How a request is to end.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) what: What,
    pub(crate) stage: Stage,
}

/// The rules that are others for one request.
#[derive(Debug, Default, Clone)]
pub(crate) struct Bend {
    pub(crate) skew: SignedDuration,
    pub(crate) count: Option<Count>,
    pub(crate) forget: Option<Duration>,
    no_customers: bool,
    unknown_customers: Vec<String>,
}

/// The faults under way, as they are shown.
#[derive(Debug, Serialize)]
pub(crate) struct FaultsView {
    seed: u64,
    faults: Vec<FaultView>,
}

#[derive(Debug, Serialize)]
struct FaultView {
    fault: String,
    seen: u64,
    struck: u64,
    ended: bool,
}

impl Faults {
    pub(crate) fn new(given: Vec<Fault>, seed: u64) -> Self {
        let faults =
            Self { given, seed, state: Mutex::new(State { seed, set: 0, active: Vec::new() }) };
        faults.rearm();
        faults
    }

    /// Begins anew with the faults that the meter was opened with.
    pub(crate) fn rearm(&self) {
        let mut state = self.state();
        *state = State { seed: self.seed, set: 0, active: Vec::new() };
        for fault in &self.given {
            state.add(fault.clone());
        }
    }

    /// Adds faults, all or none; false if there would be too many. A seed goes for these and what follows.
    pub(crate) fn add(&self, faults: Vec<Fault>, seed: Option<u64>) -> bool {
        let mut state = self.state();
        if state.active.len() + faults.len() > MAX_FAULTS {
            return false;
        }
        if let Some(seed) = seed {
            (state.seed, state.set) = (seed, 0);
        }
        for fault in faults {
            state.add(fault);
        }
        true
    }

    /// Ends all.
    pub(crate) fn end(&self) {
        self.state().active.clear();
    }

    pub(crate) fn any(&self) -> bool {
        !self.state().active.is_empty()
    }

    pub(crate) fn view(&self, now: Instant) -> FaultsView {
        let state = self.state();
        let faults = state.active.iter().map(|active| FaultView {
            fault: active.fault.to_string(),
            seen: active.seen,
            struck: active.struck,
            ended: active.is_over(now),
        });
        FaultsView { seed: state.seed, faults: faults.collect() }
    }

    /// Decides what becomes of a request.
    pub(crate) fn decide(&self, asked: &Asked<'_>) -> Plan {
        let mut plan = Plan::default();
        for active in &mut self.state().active {
            active.meet(asked, &mut plan);
        }
        plan
    }

    /// Its holders do not panic half way.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, fault: Fault) {
        self.set += 1;
        let limited = fault.kind == Kind::RateLimit;
        self.active.push(Active {
            fault,
            // Seeds that follow each other would give sequences that resemble each other.
            random: Rng::with_seed(self.seed ^ self.set.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            limiter: limited.then(|| Limiter::new(RateLimit::default())),
            seen: 0,
            struck: 0,
            since: None,
        });
    }
}

impl Active {
    /// Sees a request, and strikes it or not.
    fn meet(&mut self, asked: &Asked<'_>, plan: &mut Plan) {
        let kind = self.fault.kind.clone();
        if self.fault.route.is_some_and(|route| route != asked.route)
            || (kind.may_end() && plan.end.is_some())
        {
            return;
        }
        let mut wait = None;
        let concerned = match &kind {
            Kind::TooLarge(limit) => asked.body.len() > *limit,
            Kind::UnknownCustomer(Some(customer)) => is_of(customer, asked.body),
            Kind::RateLimit => {
                if !self.is_over(asked.now)
                    && self.seen >= self.fault.after
                    && let Some(limiter) = &self.limiter
                {
                    wait = limiter.admit(asked.key, asked.now).err();
                    plan.remaining = Some(limiter.remaining(asked.key, asked.now));
                }
                true
            }
            _ => true,
        };
        if !concerned {
            return;
        }
        self.seen += 1;
        if self.seen <= self.fault.after || self.is_over(asked.now) {
            return;
        }
        if self.fault.share < 1.0 && self.random.f64() >= self.fault.share {
            return;
        }
        let end = |what, stage| Some(End { what, stage });
        match kind {
            Kind::Ends(what, stage) => plan.end = end(what, stage),
            Kind::TooLarge(limit) => plan.end = end(What::TooLarge(limit), Stage::BeforeCommit),
            Kind::RateLimit => {
                let Some(wait) = wait else { return };
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                let what = What::Status { code: 429, retry_after: Some(seconds.max(1)) };
                plan.end = end(what, Stage::BeforeCommit);
            }
            Kind::Latency(range) => {
                let spread = range.end().saturating_sub(*range.start());
                plan.delay += *range.start() + spread.mul_f64(self.random.f64());
            }
            Kind::Count(count) => plan.bend.count = Some(count),
            Kind::Skew(skew) => plan.bend.skew = plan.bend.skew.saturating_add(skew),
            Kind::UnknownCustomer(None) => plan.bend.no_customers = true,
            Kind::UnknownCustomer(Some(customer)) => plan.bend.unknown_customers.push(customer),
            Kind::Forget(after) => {
                plan.bend.forget = Some(plan.bend.forget.map_or(after, |other| other.min(after)));
            }
        }
        self.struck += 1;
        self.since.get_or_insert(asked.now);
    }

    fn is_over(&self, now: Instant) -> bool {
        let Fault { times, length, .. } = self.fault;
        times.is_some_and(|times| self.struck >= times)
            || length
                .zip(self.since)
                .is_some_and(|(length, since)| now.saturating_duration_since(since) >= length)
    }
}

impl Kind {
    fn may_end(&self) -> bool {
        matches!(self, Self::Ends(..) | Self::TooLarge(_) | Self::RateLimit)
    }
}

impl Bend {
    pub(crate) fn knows_customer(&self, customer: &str) -> bool {
        !self.no_customers && !self.unknown_customers.iter().any(|unknown| unknown == customer)
    }
}

/// Whether a request has an event of a customer.
fn is_of(customer: &str, body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Request {
        events: Vec<Event>,
    }
    #[derive(Deserialize)]
    struct Event {
        customer_id: String,
    }
    serde_json::from_slice::<Request>(body)
        .is_ok_and(|request| request.events.iter().any(|event| event.customer_id == customer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(texts: &[&str], seed: u64) -> Faults {
        Faults::new(texts.iter().map(|text| text.parse().unwrap()).collect(), seed)
    }

    fn asked(route: Route, now: Instant) -> Asked<'static> {
        Asked { route, key: "k", body: b"", now }
    }

    /// The status that each request ends with, 0 for none.
    fn statuses(faults: &Faults, count: usize) -> Vec<u16> {
        let now = Instant::now();
        let plans = std::iter::repeat_with(|| faults.decide(&asked(Route::Ingest, now)));
        plans
            .take(count)
            .map(|plan| match plan.end {
                Some(End { what: What::Status { code, .. }, .. }) => code,
                _ => 0,
            })
            .collect()
    }

    #[test]
    fn a_list_is_a_script() {
        let script =
            faults(&["status=503,after=1,times=2", "status=401,times=1", "latency=1ms"], 1);
        assert_eq!(statuses(&script, 5), [401, 503, 503, 0, 0]);
        let view = serde_json::to_value(script.view(Instant::now())).unwrap();
        let seen = |index: usize| {
            let fault = &view["faults"][index];
            [&fault["seen"], &fault["struck"]].map(|count| count.as_u64().unwrap())
        };
        assert_eq!((seen(0), seen(1), seen(2)), ([5, 2], [3, 1], [5, 5]));
        assert_eq!(view["faults"][0]["ended"], true);
        script.end();
        assert_eq!((statuses(&script, 2), script.any()), (vec![0, 0], false));
        script.rearm();
        assert_eq!(statuses(&script, 3), [401, 503, 503]);
    }

    #[test]
    fn a_share_repeats_with_its_seed() {
        let struck = |seed| statuses(&faults(&["status=500,share=0.25"], seed), 1000);
        assert_eq!(struck(7), struck(7));
        assert_ne!(struck(7), struck(8));
        let count = struck(7).iter().filter(|status| **status == 500).count();
        assert!((200..300).contains(&count), "{count}");
        let two = faults(&["status=500,share=0.5", "latency=1s,share=0.5"], 7);
        let alike = (0..1000)
            .map(|_| two.decide(&asked(Route::Ingest, Instant::now())))
            .filter(|plan| plan.end.is_some() == (plan.delay > Duration::ZERO))
            .count();
        assert!((400..600).contains(&alike), "each fault draws for itself: {alike}");
    }

    #[test]
    fn a_fault_lasts_from_its_first_strike_and_knows_its_route() {
        let start = Instant::now();
        let faults = faults(&["hang,on=lookup,for=30s", "status=429,on=all,after=3"], 0);
        let ends = |route, seconds| {
            let now = start + Duration::from_secs(seconds);
            faults.decide(&asked(route, now)).end.map(|end| end.what)
        };
        let limited = Some(What::Status { code: 429, retry_after: None });
        assert_eq!(ends(Route::Ingest, 0), None);
        assert_eq!(ends(Route::Lookup, 100), Some(What::Hang));
        assert_eq!(ends(Route::Lookup, 129), Some(What::Hang));
        assert_eq!(ends(Route::Lookup, 130), None);
        assert_eq!(ends(Route::Meters, 131), None);
        assert_eq!(ends(Route::Events, 131), limited);
    }

    #[test]
    fn what_hangs_on_the_body_strikes_only_such_requests() {
        let faults = faults(&["unknown_customer=b", "too_large=60,times=1", "rate_limit"], 0);
        let now = Instant::now();
        let decide = |customer: &str, more: &str| {
            let body = format!(r#"{{"events":[{{"customer_id":"{customer}"}}]}}{more}"#);
            faults.decide(&Asked { route: Route::Ingest, key: "k", body: body.as_bytes(), now })
        };
        assert!(decide("a", "").bend.knows_customer("b"));
        let plan = decide("b", "");
        assert!(!plan.bend.knows_customer("b") && plan.bend.knows_customer("a"));
        assert_eq!(plan.remaining, Some(98));
        let spaces = " ".repeat(60);
        let what = |plan: Plan| plan.end.map(|end| end.what);
        assert_eq!(what(decide("a", &spaces)), Some(What::TooLarge(60)));
        assert_eq!(what(decide("a", &spaces)), None);
        for _ in 0..7 {
            assert_eq!(what(decide("a", "")), None);
        }
        assert_eq!(
            what(decide("a", "")),
            Some(What::Status { code: 429, retry_after: Some(1) }),
            "the eleventh in a second",
        );
    }
}
