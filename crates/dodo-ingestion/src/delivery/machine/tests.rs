//! The state machine against a made-up disk, network and clock.

mod aside;
mod bad_customers;
mod denied;
mod failing_customers;
mod gone;
mod lookups;
mod reading;

use super::*;
use crate::delivery::answer::{Failure, Response, ResponseHeaders};

const WALL: WallMs = 1_767_323_045_000;

/// Carries out actions as an engine with a perfect disk would, and keeps the requests.
pub(super) struct World {
    pub(super) delivery: Delivery,
    pub(super) now: Now,
    /// How many were appended to the first spool.
    appended: u64,
    /// What was not read yet, by spool.
    unread: BTreeMap<SpoolId, VecDeque<Meta>>,
    pub(super) sent: Vec<(Token, Vec<u64>)>,
    attempted: BTreeMap<SpoolId, u64>,
    pub(super) settled: Vec<u64>,
    pub(super) aside: Vec<(u64, Cause)>,
    alarms: Vec<AlarmKind>,
    looked_up: Vec<u64>,
    disk_full: bool,
    /// How many groups the records belong to, in turn.
    pub(super) groups: u64,
}

impl World {
    pub(super) fn group(&self, seq: u64) -> u64 {
        seq % self.groups
    }

    pub(super) fn new(late: LatePolicy) -> Self {
        let settings = Settings { requests_per_minute: 95, requests_per_second: 9, late, seed: 7 };
        let now = Now { wall: WALL, mono: 1_000_000 };
        let mut world = Self {
            delivery: Delivery::new(settings, &[], false, now),
            now,
            appended: 0,
            unread: BTreeMap::new(),
            sent: Vec::new(),
            attempted: BTreeMap::new(),
            settled: Vec::new(),
            aside: Vec::new(),
            alarms: Vec::new(),
            looked_up: Vec::new(),
            disk_full: false,
            groups: 10,
        };
        world.handle(Input::Available { spool: 0, metas: Vec::new() });
        world
    }

    fn handle(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.delivery.handle(input, self.now, &mut actions);
        loop {
            for action in std::mem::take(&mut actions) {
                if let Some(input) = self.carry_out(action) {
                    self.delivery.handle(input, self.now, &mut actions);
                }
            }
            if actions.is_empty() {
                self.delivery.decide(self.now, &mut actions);
            }
            if actions.is_empty() {
                return;
            }
        }
    }

    fn carry_out(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Read { spool, records, bytes } => {
                let (mut metas, mut read) = (Vec::new(), 0);
                let unread = self.unread.entry(spool).or_default();
                while metas.len() < records && read < bytes {
                    let Some(meta) = unread.pop_front() else { break };
                    read += meta.json_bytes;
                    metas.push(meta);
                }
                // As the engine does.
                return (!metas.is_empty()).then_some(Input::Available { spool, metas });
            }
            Action::RecordAttempt { token, ends } => {
                if !self.disk_full {
                    self.attempted.extend(ends.iter().map(|end| (end.spool, end.seq)));
                }
                return Some(Input::Stored { token, ok: !self.disk_full });
            }
            Action::Send { request, records, .. } => {
                let seqs: Vec<u64> = records.iter().map(|at| at.seq).collect();
                assert!(records.iter().all(|at| at.seq < self.attempted[&at.spool]));
                assert!(seqs.len() <= EVENTS_PER_REQUEST);
                self.sent.push((request, seqs));
            }
            Action::Lookup { request, record } => {
                self.sent.push((request, vec![record.seq]));
                self.looked_up.push(record.seq);
            }
            Action::Settle { records } => self.settled.extend(records.iter().map(|at| at.seq)),
            Action::SetAside { token, record, cause } => {
                if !self.disk_full {
                    self.aside.push((record.seq, cause));
                }
                return Some(Input::Stored { token, ok: !self.disk_full });
            }
            Action::Alarm { kind, .. } => self.alarms.push(kind),
        }
        None
    }

    pub(super) fn append(&mut self, records: u64) {
        self.add(records);
        self.handle(Input::Tick);
    }

    /// Adds records of all groups to the first spool, and tells nobody.
    fn add(&mut self, records: u64) {
        for seq in self.appended..self.appended + records {
            let meta = Meta { group: self.group(seq), ..meta(seq, 1_000) };
            self.unread.entry(0).or_default().push_back(meta);
        }
        self.appended += records;
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.mono += ms;
        self.now.wall += ms as i64;
        self.handle(Input::Tick);
    }

    /// Lets the time pass until there may be something to do.
    pub(super) fn wait(&mut self) {
        let wake_at = self.delivery.wake_at().expect("something to wait for");
        self.pass(wake_at.saturating_sub(self.now.mono).max(1));
    }

    pub(super) fn answer(&mut self, answer: Answer) {
        let request = self.sent.last().expect("a request").0;
        self.handle(Input::Answer { request, answer });
    }

    /// How many look-ups there were.
    pub(super) fn looked_up(&self) -> usize {
        self.looked_up.len()
    }

    pub(super) fn last(&self) -> &[u64] {
        &self.sent.last().expect("a request").1
    }
}

/// A record of group 0.
fn meta(seq: u64, delay_ms: u32) -> Meta {
    Meta {
        seq,
        json_bytes: 200,
        accepted_at: WALL,
        occurred_at: WALL,
        delay_ms,
        id_hash: seq,
        group: 0,
        flush: false,
        maybe_sent: None,
    }
}

pub(super) fn response(status: u16, body: &str) -> Answer {
    let body = body.as_bytes().to_vec();
    Answer::Response(Response { status, headers: ResponseHeaders::default(), body })
}

/// A response with no body and one header more.
fn with_header(status: u16, set: impl FnOnce(&mut ResponseHeaders)) -> Answer {
    let mut headers = ResponseHeaders::default();
    set(&mut headers);
    Answer::Response(Response { status, headers, body: Vec::new() })
}

pub(super) fn ok() -> Answer {
    response(200, r#"{"ingested_count":0}"#)
}

pub(super) fn refused() -> Answer {
    response(400, r#"{"code":"INVALID_REQUEST_BODY","message":"no"}"#)
}

#[test]
fn a_call_waits_for_its_delay_and_a_full_request_does_not() {
    let mut world = World::new(LatePolicy::Restamp);
    world.append(3);
    assert!(world.sent.is_empty());
    assert_eq!(world.delivery.wake_at(), Some(world.now.mono + 1_000));
    world.pass(999);
    assert!(world.sent.is_empty());
    world.pass(1);
    assert_eq!(world.last(), [0, 1, 2]);
    world.append(5_000);
    assert_eq!(world.sent.len(), 1, "one request at a time");
    world.answer(ok());
    assert_eq!(world.settled, [0, 1, 2]);
    assert_eq!(world.last().len(), 1_000);
}

#[test]
fn what_is_due_takes_along_what_is_only_being_read() {
    let mut world = World::new(LatePolicy::Restamp);
    world.append(3);
    world.add(500);
    world.pass(1_000);
    assert_eq!(world.last().len(), 503);
}

#[test]
fn a_clock_that_was_set_back_delays_nothing_beyond_the_delay() {
    let mut world = World::new(LatePolicy::Restamp);
    world.now.wall -= 3_600_000;
    world.append(1);
    assert_eq!(world.delivery.wake_at(), Some(world.now.mono + 1_000));
}

#[test]
fn a_flush_makes_everything_before_it_due() {
    let mut world = World::new(LatePolicy::Restamp);
    world.append(2);
    let flush = Meta { flush: true, ..meta(2, 0) };
    world.handle(Input::Available { spool: 0, metas: vec![flush] });
    assert_eq!(world.last(), [0, 1]);
    assert_eq!(world.settled, [2], "the flush itself is no event");
}

#[test]
fn a_flush_of_more_than_a_request_holds_flushes_all_of_it() {
    let mut world = World::new(LatePolicy::Restamp);
    let metas = (0..1_500).map(|seq| meta(seq, 300_000)).collect();
    world.handle(Input::Available { spool: 0, metas });
    let flush = Meta { flush: true, ..meta(1_500, 0) };
    world.handle(Input::Available { spool: 0, metas: vec![flush] });
    world.answer(ok());
    assert_eq!(world.last(), (1_000..1_500).collect::<Vec<_>>());
}

#[test]
fn large_records_are_due_and_read_by_their_bytes() {
    let mut world = World::new(LatePolicy::Restamp);
    let metas = (0..11).map(|seq| Meta { json_bytes: 200_000, ..meta(seq, 300_000) }).collect();
    let mut actions = Vec::new();
    world.delivery.handle(Input::Available { spool: 0, metas }, world.now, &mut actions);
    world.delivery.handle(Input::Tick, world.now, &mut actions);
    assert!(!world.delivery.read_on(&mut actions), "no room for more: {actions:?}");
    world.handle(Input::Tick);
    assert_eq!(world.last(), [0, 1, 2, 3], "as many as a request takes, at once");
    world.answer(ok());
    assert_eq!(world.last(), [4, 5, 6, 7]);
}

#[test]
fn requests_are_filled_in_turn_from_all_spools() {
    let mut world = World::new(LatePolicy::Restamp);
    for spool in 1..4 {
        let metas = (0..2_000)
            .map(|seq| Meta { id_hash: u64::from(spool) << 32 | seq, ..meta(seq, 0) })
            .collect();
        world.handle(Input::Available { spool, metas });
    }
    world.answer(ok());
    let mut shares = std::collections::BTreeMap::new();
    let request = world.delivery.under_way.as_ref().unwrap();
    for sent in &request.records {
        *shares.entry(sent.spool).or_insert(0) += 1;
    }
    assert_eq!(request.records.len(), 1_000);
    assert!(shares.values().all(|share| *share >= 333), "{shares:?}");
}

#[test]
fn many_calls_with_one_id_take_one_request_and_delay_nobody() {
    let mut world = World::new(LatePolicy::Restamp);
    for spool in 0..2 {
        let metas = (0..1_500).map(|seq| Meta { id_hash: 7, ..meta(seq, 0) }).collect();
        world.handle(Input::Available { spool, metas });
    }
    assert_eq!(world.last(), [0], "one id goes once into a request");
    world.answer(response(503, ""));
    assert!(world.settled.is_empty());
    until_request(&mut world);
    world.answer(ok());
    assert_eq!((world.sent.len(), world.settled.len()), (2, 3_000));
}

#[test]
fn what_cannot_be_written_down_is_not_sent_until_it_can() {
    let mut world = World::new(LatePolicy::Restamp);
    world.disk_full = true;
    world.append(1_000);
    assert!(world.sent.is_empty());
    world.disk_full = false;
    world.pass(4_999);
    assert!(world.sent.is_empty());
    world.pass(1);
    assert_eq!(world.last().len(), 1_000);
}

#[test]
fn a_dead_letter_that_cannot_be_written_is_not_forgotten() {
    let mut world = World::new(LatePolicy::Restamp);
    world.append(1);
    world.pass(1_000);
    world.disk_full = true;
    world.answer(refused());
    assert_eq!((world.aside.len(), world.settled.len()), (0, 0));
    for _ in 0..3 {
        assert_eq!(world.delivery.wake_at(), Some(world.now.mono + STORAGE_RETRY_MS));
        world.pass(STORAGE_RETRY_MS);
    }
    assert!(world.alarms.is_empty(), "it is not set aside yet: {:?}", world.alarms);
    assert_eq!(world.sent.len(), 1, "nor asked for again");
    world.disk_full = false;
    world.append(1);
    world.pass(1_000);
    world.answer(ok());
    assert_eq!(world.settled, [1], "others do not wait for room");
    world.pass(4_000);
    assert_eq!((world.sent.len(), world.aside.len()), (2, 1));
    let (seq, cause) = &world.aside[0];
    assert_eq!((*seq, cause.status, cause.attempts), (0, Some(400), 1), "as it was refused");
    assert_eq!(world.alarms, [AlarmKind::DeadLettered]);
}

#[test]
fn what_is_too_late_and_cannot_be_set_aside_is_tried_once_for_all() {
    let mut world = World::new(LatePolicy::DeadLetter);
    world.disk_full = true;
    world.now.wall += 2 * 3_600_000;
    world.append(5_000);
    for _ in 0..10 {
        world.pass(STORAGE_RETRY_MS);
    }
    assert!(world.sent.is_empty() && world.alarms.is_empty(), "{:?}", world.alarms);
    world.disk_full = false;
    world.pass(STORAGE_RETRY_MS);
    assert_eq!((world.sent.len(), world.aside.len()), (0, 5_000));
}

fn lost() -> Answer {
    Answer::Failed(Failure::Lost("reset".into()))
}

fn unknown() -> Answer {
    response(404, r#"{"code":"NOT_FOUND","message":"no such event"}"#)
}

/// Passes time until a request is under way.
fn until_request(world: &mut World) {
    if world.delivery.under_way.is_none() {
        wait_for_request(world);
    }
}

/// Passes time until the machine asks for something.
fn wait_for_request(world: &mut World) {
    let before = world.sent.len();
    while world.sent.len() == before {
        world.wait();
    }
}

#[test]
fn an_answer_to_another_request_is_ignored() {
    let mut world = World::new(LatePolicy::Restamp);
    world.append(1_000);
    world.handle(Input::Answer { request: 999, answer: ok() });
    assert!(world.settled.is_empty());
    world.answer(ok());
    world.handle(Input::Answer { request: world.sent[0].0, answer: refused() });
    assert_eq!((world.settled.len(), world.aside.len()), (1_000, 0));
}

#[test]
fn trouble_is_told_until_calls_are_taken_again() {
    let mut world = World::new(LatePolicy::Restamp);
    world.append(1);
    world.pass(1_000);
    assert_eq!(world.delivery.trouble(), None);
    world.answer(response(403, ""));
    assert_eq!(world.delivery.trouble(), Some(Trouble::KeyRefused { status: 403 }));
    wait_for_request(&mut world);
    world.answer(response(404, "not here"));
    assert_eq!(world.delivery.trouble(), Some(Trouble::WrongAddress));
    for _ in 0..3 {
        wait_for_request(&mut world);
        world.answer(lost());
    }
    assert_eq!(world.delivery.trouble(), Some(Trouble::Unreachable));
    wait_for_request(&mut world);
    world.answer(response(401, ""));
    world.handle(Input::KeyChanged);
    assert_eq!(world.delivery.trouble(), None, "nothing is known of the new key");
    world.answer(ok());
    assert_eq!((world.settled.len(), world.delivery.trouble()), (1, None));
}

#[test]
fn a_new_key_is_tried_at_once_also_if_the_old_one_is_refused_after_it_came() {
    let mut world = World::new(LatePolicy::Restamp);
    world.append(1);
    until_request(&mut world);
    world.handle(Input::KeyChanged);
    world.answer(response(401, ""));
    assert_eq!((world.sent.len(), world.delivery.trouble()), (2, None));
    assert!(!world.alarms.contains(&AlarmKind::Authentication));
    world.answer(response(401, ""));
    assert_eq!(world.delivery.trouble(), Some(Trouble::KeyRefused { status: 401 }));
    let refused_at = world.now.mono;
    wait_for_request(&mut world);
    assert_eq!(world.now.mono, refused_at + HOLD_MS);
}

/// Answers every request by the groups it holds, until all is done or so many requests were made.
fn run(world: &mut World, requests: usize, bad_group: impl Fn(u64) -> bool) {
    let mut answered = world.sent.len() - usize::from(world.delivery.under_way.is_some());
    while answered < requests {
        if world.sent.len() == answered {
            let Some(wake_at) = world.delivery.wake_at() else { return };
            world.pass(wake_at.saturating_sub(world.now.mono).max(1));
            continue;
        }
        answered = world.sent.len();
        let holds_bad = world.last().iter().any(|seq| bad_group(world.group(*seq)));
        world.answer(if holds_bad { refused() } else { ok() });
    }
}

#[test]
fn what_became_too_late_while_its_answer_waited_is_set_aside_if_that_was_chosen() {
    for (late, requests, aside) in [(LatePolicy::Restamp, 2, 0), (LatePolicy::DeadLetter, 1, 1)] {
        let mut world = World::new(late);
        world.append(1);
        until_request(&mut world);
        // The machine sleeps before it reads the answer.
        world.now.wall += 2 * 3_600_000;
        world.answer(refused());
        assert_eq!((world.sent.len(), world.aside.len()), (requests, aside));
    }
}

#[test]
fn an_answer_that_was_read_late_teaches_nothing_of_the_clock_and_sets_nothing_aside() {
    let mut world = World::new(LatePolicy::Restamp);
    world.append(1);
    until_request(&mut world);
    let refused_at = |wall| {
        let Answer::Response(mut response) = refused() else { unreachable!("it is one") };
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(wall as u64);
        response.headers.date = Some(httpdate::fmt_http_date(at));
        Answer::Response(response)
    };
    // The server's clock is seven minutes behind, and the machine sleeps before it reads the answer.
    let server = |wall: i64| wall - 7 * 60_000;
    let said = server(world.now.wall);
    world.now.wall += 40 * 60_000;
    world.answer(refused_at(said));
    assert_eq!(world.sent.len(), 2, "it is sent again");
    let now = server(world.now.wall);
    world.answer(refused_at(now));
    assert_eq!((world.sent.len(), world.aside.len()), (3, 0), "and with what was learnt then");
    world.answer(ok());
    assert_eq!(world.settled, [0]);
}
