//! Where threads meet, under shuttle: the same source, compiled a second time with primitives whose
//! scheduler is the test's, which tries one interleaving after another. A lost wake-up is a deadlock,
//! and that it reports.
#![expect(clippy::duplicate_mod, reason = "the same source over other primitives")]

#[path = "spool/group_commit.rs"]
mod group_commit;
#[path = "wake.rs"]
mod wake;

use std::io;
use std::sync::Arc;

use shuttle::rand::Rng as _;
use shuttle::sync::Mutex;
use shuttle::thread;

use self::group_commit::GroupCommit;
use self::wake::Wake;
use crate::spool::Seq;

mod sync {
    use std::future::poll_fn;
    use std::task::{Poll, Waker};

    pub(super) use shuttle::sync::atomic::{AtomicU64, Ordering};
    pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(super) use std::sync::PoisonError;

    /// As tokio's: holds one permit while nobody waits.
    #[derive(Debug, Default)]
    pub(super) struct Notify(Mutex<(bool, Option<Waker>)>);

    impl Notify {
        pub(super) fn notify_one(&self) {
            let mut state = self.0.lock().unwrap();
            state.0 = true;
            let waker = state.1.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }

        pub(super) async fn notified(&self) {
            poll_fn(|context| {
                let mut state = self.0.lock().unwrap();
                if std::mem::take(&mut state.0) {
                    return Poll::Ready(());
                }
                state.1 = Some(context.waker().clone());
                Poll::Pending
            })
            .await;
        }
    }
}

fn check(interleaving: fn()) {
    shuttle::check_random(interleaving, 2_000);
    shuttle::check_pct(interleaving, 1_000, 3);
}

#[test]
fn everyone_is_told_how_the_first_sync_went_that_covers_their_record() {
    check(|| {
        let commit = Arc::new(GroupCommit::default());
        let written = Arc::new(Mutex::new(0));
        // Up to where each sync went, and whether it succeeded; `None` while it runs.
        let syncs = Arc::new(Mutex::new(Vec::<(Seq, Option<bool>)>::new()));
        let append = {
            let (commit, written, syncs) = (commit.clone(), written.clone(), syncs.clone());
            move || {
                let seq = {
                    let mut written = written.lock().unwrap();
                    *written += 1;
                    *written - 1
                };
                let result = commit.wait_for(seq, || {
                    let end = *written.lock().unwrap();
                    {
                        let mut syncs = syncs.lock().unwrap();
                        assert!(syncs.iter().all(|(_, ended)| ended.is_some()), "two at once");
                        syncs.push((end, None));
                    }
                    thread::yield_now();
                    let ok = shuttle::rand::thread_rng().gen_bool(0.7);
                    syncs.lock().unwrap().last_mut().unwrap().1 = Some(ok);
                    (end, if ok { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) })
                });
                let syncs = syncs.lock().unwrap();
                let covering = syncs.iter().find(|(end, _)| *end > seq);
                assert_eq!(covering.unwrap().1, Some(result.is_ok()), "record {seq}: {syncs:?}");
            }
        };
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let append = append.clone();
                thread::spawn(move || (0..2).for_each(|_| append()))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_record_that_is_appended_while_the_engine_goes_to_sleep_is_not_missed() {
    const DUE: u64 = 5;
    check(|| {
        let wake = Arc::new(Wake::default());
        let appended = Arc::new(Mutex::new((0, false)));
        let appends = |records: usize, closes: bool| {
            let (wake, appended) = (wake.clone(), appended.clone());
            thread::spawn(move || {
                for _ in 0..records {
                    appended.lock().unwrap().0 += 1;
                    wake.appended(DUE);
                }
                if closes {
                    appended.lock().unwrap().1 = true;
                    wake.now();
                }
            })
        };
        let threads = [appends(2, false), appends(2, false), appends(0, true)];
        loop {
            wake.awake();
            if *appended.lock().unwrap() == (4, true) {
                break;
            }
            // Until then it is not too late to look.
            if wake.asleep_until(DUE + 1) > DUE {
                shuttle::future::block_on(wake.woken());
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
