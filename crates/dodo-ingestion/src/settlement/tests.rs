use super::*;

fn refused(seq: Seq) -> Rejection {
    let (kind, message) = ("rejected".into(), String::new());
    Rejection { seq, records: 1, kind, status: None, message, uncertain: false }
}

#[test]
fn what_was_set_aside_among_what_was_left_keeps_its_own_outcome() {
    let settlement = Settlement::default();
    settlement.advance(3);
    settlement.reject(refused(5));
    settlement.flush_appended(8);
    settlement.leave(10);
    let kind = |seq| settlement.outcome(seq).map_err(|error| error.kind()).err();
    let kinds: Vec<_> = (2..11).map(kind).collect();
    let (left, set_aside) = (Some(ErrorKind::Closed), Some(ErrorKind::Rejected));
    assert_eq!(kinds, [None, left, left, set_aside, left, left, left, left, None]);
    assert_eq!((settlement.left(), settlement.waiting_calls(10)), (5, 0));
    assert_eq!((settlement.lost(), settlement.dead_lettered()), (0, 1));
}

#[test]
fn what_is_lost_or_left_with_a_call_that_was_set_aside_is_told_behind_it() {
    for (give_up, kind) in [
        (Settlement::lose as fn(&Settlement, Seq), ErrorKind::Storage),
        (Settlement::leave, ErrorKind::Closed),
    ] {
        let settlement = Settlement::default();
        let before = settlement.missing();
        settlement.advance(3);
        settlement.reject(refused(3));
        settlement.flush_appended(5);
        settlement.reject(refused(6));
        give_up(&settlement, 10);
        let outcome = |seq| settlement.outcome(seq).map_err(|error| error.kind()).err();
        assert_eq!([outcome(3), outcome(6)], [Some(ErrorKind::Rejected); 2]);
        assert_eq!([outcome(4), outcome(9), outcome(10)], [Some(kind), Some(kind), None]);
        // Neither the flush nor what was set aside.
        assert_eq!(settlement.lost() + settlement.left(), 4);
        assert_eq!((settlement.dead_lettered(), settlement.waiting_calls(10)), (2, 0));
        assert_eq!(settlement.flushed(before).map_err(|error| error.kind()), Err(kind));
    }
}

#[test]
fn settled_flushes_are_kept_no_longer() {
    let settlement = Settlement::default();
    for seq in 0..1_000 {
        settlement.flush_appended(seq);
        settlement.advance(seq + 1);
    }
    assert_eq!(settlement.state().flushes.len(), 1);
}

#[test]
fn what_is_remembered_no_more_is_never_taken_for_billed() {
    let settlement = Settlement::default();
    let many = MAX_REJECTIONS as Seq + 2;
    for seq in 1..=many {
        settlement.reject(refused(seq));
    }
    settlement.advance(many + 10);
    let kind = |seq| settlement.outcome(seq).map_err(|error| error.kind()).err();
    let unknown = Some(ErrorKind::Storage);
    assert_eq!([kind(0), kind(1), kind(2)], [unknown; 3]);
    assert_eq!(
        [kind(3), kind(many), kind(many + 1)],
        [Some(ErrorKind::Rejected), Some(ErrorKind::Rejected), None]
    );
    assert!(settlement.outcome(1).unwrap_err().may_be_billed());
}

#[test]
fn what_is_set_aside_behind_a_call_that_waits_does_not_wait() {
    let settlement = Settlement::default();
    let many = MAX_REJECTIONS as Seq + 100;
    let ends = || {
        let Ends { billed, dead_lettered, lost } = settlement.ends(many + 10);
        let waiting = many + 9 - billed - dead_lettered - lost; // one is a flush
        (waiting, dead_lettered, lost)
    };
    settlement.advance(2);
    settlement.flush_appended(3);
    settlement.reject(refused(1));
    assert_eq!(ends(), (many + 7, 1, 0));
    settlement.reject(Rejection::lost(&(4..6)));
    settlement.reject(refused(6));
    settlement.reject(refused(6));
    assert_eq!(ends(), (many + 4, 2, 2));
    for seq in 7..many {
        settlement.reject(refused(seq));
    }
    assert_eq!(ends(), (11, many - 5, 2), "some are remembered no more");
    settlement.advance(many);
    assert_eq!(ends(), (10, many - 5, 2));
    settlement.reject(refused(many + 3));
    assert_eq!(ends(), (9, many - 4, 2));
}

#[test]
fn a_flush_tells_of_what_was_lost_meanwhile_and_of_nothing_else() {
    let settlement = Settlement::default();
    let flushed = |before| settlement.flushed(before).map_err(|error| error.kind());
    let before = settlement.missing();
    settlement.reject(Rejection::lost(&(2..4)));
    settlement.advance(6);
    assert_eq!(flushed(before), Err(ErrorKind::Storage));
    let before = settlement.missing();
    for seq in 6..MAX_REJECTIONS as Seq + 8 {
        settlement.reject(refused(seq));
    }
    let own = settlement.outcome(5).map_err(|error| error.kind());
    assert_eq!(own, Err(ErrorKind::Storage), "it is remembered no more");
    assert_eq!(flushed(before), Ok(()));
    settlement.leave(MAX_REJECTIONS as Seq + 20);
    assert_eq!(flushed(before), Err(ErrorKind::Closed));
}

#[test]
fn what_another_process_set_aside_is_counted_once_however_often_it_is_read() {
    let settlement = Settlement::default();
    let many = MAX_REJECTIONS as Seq + 5;
    let learn = |settled, outcomes: Seq| {
        let read = |each: &mut dyn FnMut(Rejection)| {
            (0..outcomes).map(refused).for_each(each);
            Ok(())
        };
        settlement.learn(settled, read).unwrap();
    };
    learn(many, many);
    learn(many + 1, many + 3);
    learn(many + 3, many + 3);
    assert_eq!((settlement.settled(), settlement.dead_lettered()), (many + 3, many + 3));
}

#[test]
fn a_wait_that_took_too_long_says_what_keeps_calls_from_being_billed() {
    let settlement = Settlement::default();
    let overdue = |trouble| {
        settlement.set_trouble(trouble, None);
        let error = settlement.overdue("after 5s 2 calls stay spooled");
        assert!(error.message().starts_with("after 5s 2 calls stay spooled"));
        (error.kind(), error.status())
    };
    let refused = Some(Trouble::KeyRefused { status: 403 });
    assert_eq!(overdue(refused), (ErrorKind::Authentication, Some(403)));
    assert_eq!(overdue(Some(Trouble::WrongAddress)), (ErrorKind::Network, None));
    assert_eq!(overdue(Some(Trouble::Unreachable)), (ErrorKind::Network, None));
    assert_eq!(overdue(Some(Trouble::Systemic)), (ErrorKind::Timeout, None));
    assert_eq!(overdue(None), (ErrorKind::Timeout, None));
    settlement.set_trouble(refused, Some("no such key"));
    assert_eq!(settlement.overdue("late").message(), "late: no such key");
}

/// Nothing ticks here: a wake-up that is lost is a deadline that passes.
#[test]
fn whoever_waits_hears_of_their_record_however_the_threads_run() {
    const RECORDS: Seq = 200;
    for round in 0..20 {
        let settlement = Settlement::default();
        let deadline = Instant::now() + Duration::from_secs(120);
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (0..4)
                .map(|thread| {
                    let settlement = &settlement;
                    scope.spawn(move || {
                        for seq in (thread..RECORDS).step_by(4) {
                            let outcome = block_on(settlement.wait().until_settled(seq, deadline));
                            let rejected = outcome.expect("heard of it").is_err();
                            assert_eq!(rejected, seq % 7 == 0, "record {seq}");
                        }
                    })
                })
                .collect();
            let mut random = fastrand::Rng::with_seed(round);
            for seq in 0..RECORDS {
                if seq % 7 == 0 {
                    settlement.reject(refused(seq));
                }
                if random.bool() {
                    std::thread::yield_now();
                }
                settlement.advance(seq + 1);
            }
            for waiter in waiters {
                waiter.join().unwrap();
            }
        });
        assert!(!settlement.has_waiters());
    }
}

type Delivered = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An executor of a host that polls in its wakers, on the thread that wakes.
struct Inline(Mutex<Option<Delivered>>);

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        let Some(mut future) = self.0.lock().unwrap().take() else { return };
        if future.as_mut().poll(&mut Context::from_waker(&self.clone().into())).is_pending() {
            *self.0.lock().unwrap() = Some(future);
        }
    }
}

/// One whose queue is gone: to wake a task is to drop it.
struct Gone(Mutex<Option<Delivered>>);

impl Wake for Gone {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().unwrap().take());
    }
}

fn a_year_from_now() -> Instant {
    Instant::now() + Duration::from_secs(365 * 24 * 60 * 60)
}

fn waiting_for(settlement: &Arc<Settlement>, seq: Seq, over: &Arc<AtomicUsize>) -> Delivered {
    let (settlement, over) = (settlement.clone(), over.clone());
    Box::pin(async move {
        settlement.wait().until_settled(seq, a_year_from_now()).await;
        over.fetch_add(1, Ordering::SeqCst);
    })
}

#[test]
fn a_waker_may_look_again_at_once_or_drop_what_waits() {
    let (settlement, over) = (Arc::new(Settlement::default()), Arc::new(AtomicUsize::new(0)));
    for seq in 0..3 {
        Arc::new(Inline(Mutex::new(Some(waiting_for(&settlement, seq, &over))))).wake();
        let gone = Arc::new(Gone(Mutex::new(None)));
        let mut future = waiting_for(&settlement, seq, &over);
        let waker = gone.clone().into();
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        *gone.0.lock().unwrap() = Some(future);
    }
    settlement.advance(2);
    assert_eq!(over.load(Ordering::SeqCst), 2);
    settlement.end();
    assert_eq!(over.load(Ordering::SeqCst), 3);
    assert!(!settlement.has_waiters());
}

#[test]
fn nobody_is_woken_but_for_their_own_record_and_time() {
    #[derive(Default)]
    struct Counted(AtomicUsize);
    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let settlement = Settlement::default();
    let (now, later) = (Instant::now(), a_year_from_now());
    let waiting = settlement.wait();
    let mut waits = Vec::new();
    for (seq, deadline) in [(4, later), (5, later), (6, now + Duration::from_millis(1))] {
        let woken = Arc::new(Counted::default());
        let mut wait = Box::pin(waiting.over(seq, deadline));
        let waker = woken.clone().into();
        // The last one's time may be over by now, and it is woken all the same.
        _ = wait.as_mut().poll(&mut Context::from_waker(&waker));
        waits.push((wait, woken));
    }
    let woken =
        || waits.iter().map(|(_, woken)| woken.0.load(Ordering::SeqCst)).collect::<Vec<_>>();
    while Instant::now() < now + Duration::from_millis(1) {
        thread::yield_now();
    }
    settlement.tick();
    assert_eq!(woken(), [0, 0, 1]);
    settlement.advance(5);
    assert_eq!(woken(), [1, 0, 1]);
    settlement.tick();
    settlement.end();
    assert_eq!(woken(), [1, 1, 1]);
}
