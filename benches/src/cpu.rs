//! The time that threads spent on a processor, which other programs' load does not lengthen. Known on
//! Linux only.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Of this thread.
pub(crate) fn this_thread() -> Option<Duration> {
    // The kernel adds to the account at a tick, or when the thread yields.
    std::thread::yield_now();
    on_processor(Path::new("/proc/thread-self"))
}

/// Of this process's threads with this name.
pub(crate) fn threads_named(name: &str) -> Option<Duration> {
    let tasks = fs::read_dir("/proc/self/task").ok()?.flatten();
    let named = tasks.map(|task| task.path()).filter(|task| {
        fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    });
    Some(named.filter_map(|task| on_processor(&task)).sum())
}

fn on_processor(task: &Path) -> Option<Duration> {
    let statistics = fs::read_to_string(task.join("schedstat")).ok()?;
    statistics.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}
