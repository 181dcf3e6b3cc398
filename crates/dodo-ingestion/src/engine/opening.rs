//! What an operator is told of when a namespace is opened, and of those beside it from time to time.

use std::path::Path;

use crate::alarm::{AlarmKind, Alarms};
use crate::clock::MonoMs;
use crate::config::digest;
use crate::disk::{self, Notice};
use crate::shared::Shared;
use crate::spool::{Namespace, Settings};

/// So many of the namespaces beside one are looked at.
const MAX_SIBLINGS: usize = 50;
/// The setting that stands for the API key.
const KEY_DIGEST: &str = "api_key_digest";

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

/// Writes down what this process is set to, and tells of how the last one was set otherwise.
pub(super) fn tell_of_settings(shared: &Shared, namespace: &Namespace, now: MonoMs) {
    let settings = shared.config.shared().map(|(name, value)| (name.to_owned(), value));
    let mut ours = Settings::from_iter(settings);
    ours.insert(KEY_DIGEST.into(), digest(shared.key().expose()).into());
    match namespace.exchange_settings(&ours) {
        Ok(theirs) => {
            let differences = differences(&theirs.unwrap_or_default(), &ours);
            if !differences.is_empty() {
                let message = format!(
                    "another key or other settings than the last process of this account used: \
                     {differences}. That is right after a change of them; else give all processes \
                     of the account the same (in {})",
                    namespace.dir().display()
                );
                shared.alarms.raise(AlarmKind::SettingsDiffer, &message, now);
            }
        }
        Err(error) => {
            let dir = namespace.dir().display();
            let message = format!("the settings of {dir} cannot be compared: {error}");
            shared.alarms.raise(AlarmKind::Storage, &message, now);
        }
    }
}

/// Tells of calls beside this namespace that wait for a process of their own account. What cannot be
/// looked at is not this account's to tell of.
pub(super) fn tell_of_abandoned(alarms: &Alarms, namespace: &Namespace, now: MonoMs) {
    let siblings = namespace.siblings(MAX_SIBLINGS).unwrap_or_default();
    let ours = siblings.iter().filter(|sibling| disk::is_ours(sibling.dir()));
    let abandoned = ours.filter_map(|sibling| {
        let bytes = sibling.abandoned_bytes().ok()??;
        Some(format!("{} (about {} KiB)", sibling.dir().display(), bytes.div_ceil(1024)))
    });
    let abandoned: Vec<String> = abandoned.collect();
    if !abandoned.is_empty() {
        let message = format!(
            "calls of another account, environment or address wait, and no process of these runs: \
             start one, or remove the directory if nobody is to be billed for them. If only the key \
             was rotated, set account to what follows the second - of the directory's name: a new \
             key then finds its old calls. {}",
            abandoned.join(", ")
        );
        alarms.raise(AlarmKind::Abandoned, &message, now);
    }
}

/// Of the key only that it differs. What one of them does not have is another version's.
fn differences(theirs: &Settings, ours: &Settings) -> String {
    let differing = ours.iter().filter_map(|(name, our)| {
        let their = theirs.get(name).filter(|their| *their != our)?;
        Some(match name.as_str() {
            KEY_DIGEST => "api_key".to_owned(),
            name => format!("{name} {their} before, {our} now"),
        })
    });
    differing.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_difference_is_named_and_of_the_key_nothing_more() {
        let settings = |value: serde_json::Value| value.as_object().unwrap().clone();
        let ours = settings(json!({KEY_DIGEST: "0a1b", "late": "restamp", "request_timeout": 0.5}));
        assert_eq!(differences(&Settings::default(), &ours), "");
        assert_eq!(differences(&settings(json!({"late": "restamp", "newer": 1})), &ours), "");
        let theirs = json!({KEY_DIGEST: "ffff", "late": "dead_letter", "request_timeout": 30.0});
        assert_eq!(
            differences(&settings(theirs), &ours),
            "api_key; late \"dead_letter\" before, \"restamp\" now; \
             request_timeout 30.0 before, 0.5 now"
        );
    }
}
