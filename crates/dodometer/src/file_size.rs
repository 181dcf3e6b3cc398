//! The limit on the size of files, as `ulimit -f` sets it.

/// From now on a write beyond the limit is an error of that write. The system's default is to kill the process.
#[cfg(unix)]
pub(crate) fn survive_limit() {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use signal_hook::consts::SIGXFSZ;

    // Nobody looks at the flag: that the signal is handled is enough. It stays handled until the process ends.
    if let Err(error) = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))) {
        tracing::warn!(%error, "a write beyond the limit on the size of files ends this process");
    }
}

#[cfg(not(unix))]
pub(crate) fn survive_limit() {}
