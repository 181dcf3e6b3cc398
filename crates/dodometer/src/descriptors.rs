//! How many files and connections this process may have open.

/// Room for more connections than the server takes at a time.
#[cfg(unix)]
const WANTED: u64 = 8192;

/// Raises the limit to what the server needs, or as near as the system lets it. Many systems start a
/// process with room for 1,024, and some for 256.
#[cfg(unix)]
pub(crate) fn make_room() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    // None is no limit.
    let Some(current) = limit.current else { return };
    let wanted = limit.maximum.map_or(WANTED, |maximum| maximum.min(WANTED));
    if current < wanted {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, current, wanted, "the limit of open files stays as it is");
        }
    }
}

#[cfg(not(unix))]
pub(crate) fn make_room() {}
