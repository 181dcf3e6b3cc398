//! What an operator is told of when a namespace is opened.

use std::path::Path;

use crate::alarm::{AlarmKind, Alarms};
use crate::clock::MonoMs;
use crate::disk::Notice;

/// Tells of the place that a namespace lies in, each kind of thing once.
pub(super) fn tell_of_place(alarms: &Alarms, notices: &[Notice], dir: &Path, now: MonoMs) {
    let open = notices.iter().filter_map(|notice| match notice {
        Notice::WasOpen(dir, mode) => Some(format!("{} had the mode {mode:o}", dir.display())),
        Notice::ContainerLayer => None,
    });
    let open: Vec<String> = open.collect();
    if !open.is_empty() {
        let message = format!(
            "other users could reach the spool, and now cannot: {}; calls may have been read or planted",
            open.join(", ")
        );
        alarms.raise(AlarmKind::OpenToOthers, &message, now);
    }
    if notices.contains(&Notice::ContainerLayer) {
        let message = format!(
            "{} is in the container's writable layer and is removed with it: calls that wait then \
             are lost; put spool_dir on a volume, or set allow_filesystem to overlay",
            dir.display()
        );
        alarms.raise(AlarmKind::ContainerLayer, &message, now);
    }
}
