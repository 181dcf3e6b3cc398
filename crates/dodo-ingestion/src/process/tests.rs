use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::*;

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn of_threads_that_race_one_makes_the_value_and_the_others_drop_theirs() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let made = AtomicUsize::new(0);
    let cell = PerProcess::new();
    assert!(cell.get().is_none());
    let failed: Result<&Counted, &str> = cell.get_or_try_init(|| Err("not now"));
    assert_eq!(failed.err(), Some("not now"));
    let start = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                let value = cell.get_or_init(|| {
                    made.fetch_add(1, Ordering::SeqCst);
                    Counted(dropped.clone())
                });
                let again = cell.get_or_try_init(|| Err::<Counted, ()>(())).map(ptr::from_ref);
                assert_eq!(again, Ok(ptr::from_ref(value)));
            });
        }
    });
    assert_eq!(dropped.load(Ordering::SeqCst), made.load(Ordering::SeqCst) - 1);
    drop(cell);
    assert_eq!(dropped.load(Ordering::SeqCst), made.load(Ordering::SeqCst));
}

/// What a forked child finds, as a number up to 255.
#[cfg(unix)]
pub(super) fn in_child(find: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child calls nothing that another test's thread may have locked, and does not
    // return to the test harness.
    match unsafe { libc::fork() } {
        0 => {
            let found = find();
            // SAFETY: ends the child.
            unsafe { libc::_exit(found) }
        }
        child => {
            assert!(child > 0);
            let mut status = 0;
            // SAFETY: `status` has room for what is written.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert!(libc::WIFEXITED(status), "{status:#x}");
            libc::WEXITSTATUS(status)
        }
    }
}

#[test]
#[cfg(unix)]
fn a_child_and_its_child_have_generations_of_their_own() {
    let of_parent = generation();
    let found = in_child(|| {
        let of_child = generation();
        let grandchild = in_child(|| {
            let own = generation();
            i32::from(own != of_child && own != of_parent && own == generation())
        });
        grandchild + 2 * i32::from(of_child != of_parent)
    });
    assert_eq!(found, 3);
    assert_eq!(generation(), of_parent);
}

/// As a `clone` that runs no handlers leaves it.
#[test]
#[cfg(target_os = "linux")]
fn a_child_of_a_fork_without_handlers_notices() {
    let of_parent = generation();
    // SAFETY: without flags it is a fork; the rest is as in `in_child`.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        let noticed = generation() != of_parent;
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(noticed)) }
    }
    let mut status = 0;
    let child = libc::pid_t::try_from(child).unwrap();
    // SAFETY: `status` has room for what is written.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 1));
}

#[test]
#[cfg(unix)]
fn a_child_finds_a_cell_empty_and_drops_nothing_that_it_inherited() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let cell = PerProcess::new();
    cell.get_or_init(|| Counted(dropped.clone()));
    let value = OfProcess::new(Counted(dropped.clone()));
    let found = in_child(|| {
        let empty = cell.get().is_none() && value.get().is_none();
        let filled: Result<_, Infallible> = cell.get_or_try_init(|| Ok(Counted(dropped.clone())));
        let filled = filled.is_ok() && cell.get().is_some();
        drop(value.even_inherited().0.clone());
        drop(cell);
        drop(value);
        i32::from(empty) + 2 * i32::from(filled) + 4 * dropped.load(Ordering::SeqCst) as i32
    });
    assert_eq!(found, 1 + 2 + 4, "its own value alone was dropped");
}

#[test]
#[cfg(unix)]
fn a_wait_that_was_begun_before_a_fork_ends_with_nothing() {
    fn poll<F: Future>(wait: &mut Unforked<F>) -> Poll<Option<F::Output>> {
        Pin::new(wait).poll(&mut Context::from_waker(std::task::Waker::noop()))
    }

    let mut wait = Unforked::new(std::future::pending::<()>());
    assert_eq!(poll(&mut wait), Poll::Pending);
    assert_eq!(in_child(|| i32::from(poll(&mut wait) == Poll::Ready(None))), 1);
    assert_eq!(poll(&mut Unforked::new(std::future::ready(7))), Poll::Ready(Some(7)));
}

#[test]
#[cfg(unix)]
fn a_child_does_not_keep_a_lock_and_does_not_free_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let open = || {
        let mut options = std::fs::OpenOptions::new();
        OwnFile::open(options.read(true).write(true).create(true), &path).unwrap()
    };
    let taken = loop {
        let file = open();
        // Other tests fork.
        if file.try_lock().unwrap() {
            break file;
        }
    };
    let found = in_child(|| {
        let closed = taken.metadata().is_err();
        drop(taken);
        let held = !open().try_lock().unwrap();
        i32::from(closed) + 2 * i32::from(held)
    });
    assert_eq!(found, 3);
}

#[test]
#[cfg(unix)]
fn a_descriptor_that_became_the_hosts_is_not_closed() {
    use std::os::fd::AsRawFd as _;

    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| {
        let mut options = std::fs::OpenOptions::new();
        OwnFile::open(options.read(true).write(true).create(true), &dir.path().join(name)).unwrap()
    };
    let (ours, hosts) = (open("ours"), open("hosts"));
    let number = ours.as_raw_fd();
    // SAFETY: both descriptors are open; `ours` is not used any more but to be dropped.
    assert_eq!(unsafe { libc::dup2(hosts.as_raw_fd(), number) }, number);
    drop(ours);
    // SAFETY: asks only.
    assert!(unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0, "it is still open");
    // SAFETY: it is this test's.
    unsafe { libc::close(number) };
}
