//! Noticing a fork: cheaply at every call, and at once where the C library runs handlers.

use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::descriptors::close_inherited;

/// In the word that holds the generation: this process was just forked.
const FORKED: u64 = 0;
/// And: a thread is taking note of that.
const NOTING: u64 = 1;

/// Where the generation of this process stands: in a page that a fork wipes, or in [`UNWIPED`].
/// Null until the first call.
static WORD: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
static UNWIPED: AtomicU64 = AtomicU64::new(FORKED);
/// The process that [`UNWIPED`] is of; zero where the page tells.
static UNWIPED_OF: AtomicI32 = AtomicI32::new(0);
/// The latest generation that was given out, in this process or an ancestor.
static LATEST: AtomicU64 = AtomicU64::new(NOTING);

/// How many forks of this process were begun, and how many are over.
static FORKS_BEGUN: AtomicU64 = AtomicU64::new(0);
static FORKS_OVER: AtomicU64 = AtomicU64::new(0);
/// No fork takes longer; one that seems to was lost sight of.
const LONGEST_FORK: Duration = Duration::from_millis(200);

/// A number that differs in a forked child from that of its ancestors. Three loads, where a fork
/// wipes a page; a system call more elsewhere.
pub(crate) fn generation() -> u64 {
    let mut word = WORD.load(Ordering::Acquire);
    if word.is_null() {
        word = register();
    }
    // SAFETY: `word` points to `UNWIPED` or to the page of `wiped_page`; neither ever goes away.
    let word = unsafe { &*word };
    loop {
        // Before the word: it is set after the word says that a fork is being noted.
        let of = UNWIPED_OF.load(Ordering::Acquire);
        let forked = of != 0 && of != process_id();
        match word.load(Ordering::Acquire) {
            NOTING if !forked => std::thread::yield_now(),
            known if known > NOTING && !forked => return known,
            stale => {
                let order = (Ordering::AcqRel, Ordering::Relaxed);
                if word.compare_exchange(stale, NOTING, order.0, order.1).is_ok() {
                    return note(word);
                }
            }
        }
    }
}

/// Takes note of a fork, in the child. Only atomics and calls that a signal handler may make.
fn note(word: &AtomicU64) -> u64 {
    close_inherited();
    if UNWIPED_OF.load(Ordering::Relaxed) != 0 {
        UNWIPED_OF.store(process_id(), Ordering::Release);
    }
    let generation = LATEST.fetch_add(1, Ordering::Relaxed) + 1;
    word.store(generation, Ordering::Release);
    generation
}

/// Makes forks noticeable. Threads that race here register the handlers twice, which does no harm.
#[cold]
fn register() -> *mut AtomicU64 {
    // SAFETY: the handlers touch only atomics and descriptors. Where there is no memory for them,
    // the word tells all the same.
    unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(in_child)) };
    let page = wiped_page();
    let word = page.unwrap_or_else(|| {
        UNWIPED_OF.store(process_id(), Ordering::Release);
        ptr::from_ref(&UNWIPED).cast_mut()
    });
    let generation = LATEST.fetch_add(1, Ordering::Relaxed) + 1;
    // SAFETY: as in `generation`.
    let first = unsafe { &*word };
    // Another thread may have set the one that is not in a page.
    let _ = first.compare_exchange(FORKED, generation, Ordering::AcqRel, Ordering::Relaxed);
    let null = ptr::null_mut();
    match WORD.compare_exchange(null, word, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => word,
        Err(published) => {
            if let Some(page) = page {
                // SAFETY: the page was mapped with this length above, and nobody else knows of it.
                unsafe { libc::munmap(page.cast(), PAGE_BYTES) };
            }
            published
        }
    }
}

/// The kernel rounds it up to a page.
const PAGE_BYTES: libc::size_t = size_of::<AtomicU64>();

/// A page of zeros that a forked child finds zeroed again, also after a `clone` that runs no
/// handlers.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn wiped_page() -> Option<*mut AtomicU64> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
    // SAFETY: a new private mapping that replaces none.
    let page = unsafe { libc::mmap(ptr::null_mut(), PAGE_BYTES, access, kind, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the page was just mapped with this length, and nobody else knows of it.
    unsafe {
        if libc::madvise(page, PAGE_BYTES, libc::MADV_WIPEONFORK) != 0 {
            libc::munmap(page, PAGE_BYTES);
            return None;
        }
    }
    Some(page.cast())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn wiped_page() -> Option<*mut AtomicU64> {
    None
}

fn process_id() -> libc::pid_t {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::getpid() }
}

extern "C" fn before_fork() {
    FORKS_BEGUN.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn after_fork() {
    FORKS_OVER.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn in_child() {
    FORKS_OVER.store(FORKS_BEGUN.load(Ordering::SeqCst), Ordering::SeqCst);
    // SAFETY: as in `generation`; null before the first call.
    if let Some(word) = unsafe { WORD.load(Ordering::Acquire).as_ref() } {
        word.store(FORKED, Ordering::Release);
        generation();
    }
}

/// A moment at which no fork was under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoFork(u64);

impl NoFork {
    /// Waits until no fork is under way.
    pub(super) fn now() -> Self {
        let started = Instant::now();
        loop {
            let begun = FORKS_BEGUN.load(Ordering::SeqCst);
            let none = FORKS_OVER.load(Ordering::SeqCst) == begun;
            if none || started.elapsed() >= LONGEST_FORK {
                return Self(begun);
            }
            std::thread::yield_now();
        }
    }

    /// Whether no fork has begun since.
    pub(super) fn is_still(self) -> bool {
        FORKS_BEGUN.load(Ordering::SeqCst) == self.0
    }
}
