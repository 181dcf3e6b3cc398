//! Which namespaces this process has open, and where they are on disk.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Job, opening, serve};
use crate::alarm::{AlarmCallback, AlarmKind};
use crate::clock;
use crate::config::{Config, Durability, NamespaceConfig, digest};
use crate::disk::{Disk, MemoryDisk, Notice, SystemDisk, Unfit};
use crate::error::{Error, Result};
use crate::id::IdSource;
use crate::process::PerProcess;
use crate::shared::Shared;
use crate::spool::{Namespace, Owned, SpoolName, Writer, WriterSettings};

/// What the memory of a host without a disk may hold.
const MEMORY_MAX_BYTES: u64 = 16 << 20;
/// Where the spools are that are in memory; what is on disk has an absolute path.
const IN_MEMORY: &str = "memory";
/// Another process may mistake a spool that is just being made for one left by the dead.
const CREATE_ATTEMPTS: usize = 3;

/// A namespace that this process has open.
struct Open {
    shared: Weak<Shared>,
    /// The client whose key is used, by the order in which they were built.
    newest: u64,
}

/// Opens the namespace that the configuration names, or joins it where this process has it open.
/// Of its clients, which are numbered as they were built, the last has the key; a child opens them in
/// any order.
pub(crate) fn open(
    config: &Config,
    on_alarm: Option<(u64, AlarmCallback)>,
    client: u64,
) -> Result<Arc<Shared>> {
    static OPEN: PerProcess<Mutex<HashMap<String, Open>>> = PerProcess::new();
    let registry = OPEN.get_or_init(Mutex::default);
    let mut open = registry.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|_, open| open.shared.strong_count() > 0);
    let wanted = &config.namespace;
    let (name, parent) = (namespace_name(wanted), parent_dir(wanted));
    let place = format!("{name} {parent:?} {}", wanted.durability == Durability::Memory);
    if let Some(known) = open.get_mut(&place)
        && let Some(shared) = known.shared.upgrade()
        && let Some(others) = shared.join(same_settings(&shared.config, wanted))?
    {
        let replaced = match on_alarm {
            // The last one was dropped, and this one is told instead of it.
            Some((number, callback)) if others == 0 => {
                shared.alarms.replace_callbacks(number, callback)
            }
            Some((number, callback)) => {
                shared.alarms.add_callback(number, callback);
                BTreeMap::new()
            }
            None => BTreeMap::new(),
        };
        if client > known.newest {
            known.newest = client;
            shared.set_key(config.api_key.clone());
        }
        drop(open);
        drop(replaced);
        return Ok(shared);
    }

    let ids = new_ids()?;
    let Opened { namespace, owned, fallback, full, notices } = create(wanted, &name, parent, &ids)?;
    let memory = fallback.is_some() || wanted.durability == Durability::Memory;
    let max_bytes = wanted.max_spool_bytes;
    let settings = WriterSettings {
        max_bytes: if memory { max_bytes.min(MEMORY_MAX_BYTES) } else { max_bytes },
        sync: wanted.durability == Durability::Disk,
    };
    let writer = Writer::new(namespace.clone(), owned, settings);
    let shared = Arc::new(Shared::new(wanted.clone(), writer, ids, config.api_key.clone()));
    if let Some((number, callback)) = on_alarm {
        shared.alarms.add_callback(number, callback);
    }
    if let Some(full) = full {
        shared.serve_beside(serve_full(full, &shared)?);
    }
    serve(Job::Serve { shared: shared.clone(), namespace: namespace.clone() })?;
    open.insert(place, Open { shared: Arc::downgrade(&shared), newest: client });
    // Who is told may build a client.
    drop(open);

    let now = clock::now().mono;
    if memory {
        let why = fallback.unwrap_or_else(|| "durability is \"memory\"".into());
        let message = format!("accepted calls are kept in memory only and die with it: {why}");
        shared.alarms.raise(AlarmKind::MemoryOnly, &message, now);
    }
    opening::tell_of_place(&shared.alarms, &notices, namespace.dir(), now);
    if !memory {
        opening::tell_of_settings(&shared, &namespace, now);
        opening::tell_of_abandoned(&shared.alarms, &namespace, now);
    }
    Ok(shared)
}

fn new_ids() -> Result<IdSource> {
    IdSource::new().map_err(|error| {
        Error::storage("the kernel gives no random numbers", io::Error::other(error.to_string()))
    })
}

pub(crate) fn is_in_memory(dir: &Path) -> bool {
    dir.starts_with(IN_MEMORY)
}

/// A namespace with a spool of this process's own.
struct Opened {
    namespace: Namespace,
    owned: Owned,
    /// Why it is in memory against the caller's wish.
    fallback: Option<String>,
    /// The one on a disk that has no room for a spool.
    full: Option<Namespace>,
    notices: Vec<Notice>,
}

/// Opens the namespace; in memory where that is wanted, or where there is no directory that can be
/// written and the calls need not survive the machine.
fn create(
    config: &NamespaceConfig,
    name: &str,
    parent: Option<PathBuf>,
    ids: &IdSource,
) -> Result<Opened> {
    let on = |disk: Arc<dyn Disk>, dir: PathBuf| {
        let namespace = Namespace::open(disk, dir)?;
        if config.durability == Durability::Disk {
            namespace.sync_dirs()?;
        }
        let spool_name = || SpoolName(ids.next(clock::now().wall));
        let mut owned = namespace.create_spool(spool_name());
        for _ in 1..CREATE_ATTEMPTS {
            if owned.is_err() {
                owned = namespace.create_spool(spool_name());
            }
        }
        let (fallback, full, notices) = (None, None, Vec::new());
        Ok::<_, io::Error>(Opened { namespace, owned: owned?, fallback, full, notices })
    };
    let in_memory = |fallback: Option<String>| {
        let opened = on(Arc::new(MemoryDisk::default()), PathBuf::from(IN_MEMORY))
            .map_err(|error| Error::storage("the spool cannot be made in memory", error))?;
        Ok(Opened { fallback, ..opened })
    };
    if config.durability == Durability::Memory {
        return in_memory(None);
    }
    let Some(parent) = parent else {
        return match config.durability {
            Durability::Disk => Err(Error::configuration(
                "spool_dir",
                "this account has no directory for state; name one",
            )),
            _ => in_memory(Some("this account has no directory for state; set spool_dir".into())),
        };
    };
    let dir = parent.join("dodo-ingestion").join(name);
    let prepare = || SystemDisk.prepare(&Namespace::dirs(&dir), &config.allow_filesystem);
    let opened = match prepare() {
        Ok(notices) => {
            on(Arc::new(SystemDisk), dir.clone()).map(|opened| Opened { notices, ..opened })
        }
        Err(Unfit::Failed(error)) => Err(error),
        Err(Unfit::Refused(why)) => return Err(Error::configuration("spool_dir", why)),
    };
    match opened {
        Ok(opened) => Ok(opened),
        Err(error) if config.durability == Durability::Disk => {
            Err(Error::storage(format!("spool_dir: {} cannot be used", parent.display()), error)
                .with_field("spool_dir"))
        }
        Err(error) => {
            let is_full = error.kind() == io::ErrorKind::StorageFull && prepare().is_ok();
            let open = || Namespace::open(Arc::new(SystemDisk), dir.clone()).ok();
            let full = is_full.then(open).flatten();
            let why = format!("spool_dir {} cannot be used: {error}", parent.display());
            in_memory(Some(why)).map(|opened| Opened { full, ..opened })
        }
    }
}

/// Delivers what lies on a full disk, which makes room there. This process's own calls are not among it.
/// It is told and counted as theirs.
fn serve_full(namespace: Namespace, own: &Shared) -> Result<Arc<Shared>> {
    let ids = new_ids()?;
    let none = Namespace::open(Arc::new(MemoryDisk::default()), PathBuf::from(IN_MEMORY)).and_then(
        |memory| Ok((memory.create_spool(SpoolName(ids.next(clock::now().wall)))?, memory)),
    );
    let (owned, memory) =
        none.map_err(|error| Error::storage("the spool cannot be made in memory", error))?;
    let settings = WriterSettings { max_bytes: own.config.max_spool_bytes, sync: false };
    let writer = Writer::new(memory, owned, settings);
    let shared = Arc::new(own.new_beside(writer, ids));
    serve(Job::Serve { shared: shared.clone(), namespace })?;
    Ok(shared)
}

/// `<environment>-<hash of scheme, host and port>-<account>`.
fn namespace_name(config: &NamespaceConfig) -> String {
    let origin = &digest(&config.base_url.origin())[..8];
    format!("{}-{origin}-{}", config.environment.as_str(), config.account)
}

fn parent_dir(config: &NamespaceConfig) -> Option<PathBuf> {
    config.spool_dir.clone().or_else(|| state_dir(|name| std::env::var_os(name).map(PathBuf::from)))
}

/// The platform's directory for an account's state. Never a shared one such as /tmp.
fn state_dir(env: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let env = |name: &str| env(name).filter(|path| path.is_absolute());
    // systemd gives a service its own; the first, where it gives several.
    let systemd = env("STATE_DIRECTORY").and_then(|paths| std::env::split_paths(&paths).next());
    if cfg!(target_os = "windows") {
        env("LOCALAPPDATA")
    } else if cfg!(any(target_os = "macos", target_os = "ios")) {
        env("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        systemd
            .or_else(|| env("XDG_STATE_HOME"))
            .or_else(|| env("HOME").map(|home| home.join(".local/state")))
    }
}

/// Two clients of one account in a process share its spool and sender, and so these settings.
fn same_settings(open: &NamespaceConfig, wanted: &NamespaceConfig) -> Result<()> {
    let mut pairs = open.shared().into_iter().zip(wanted.shared());
    match pairs.find(|(open, wanted)| open != wanted) {
        None => Ok(()),
        Some(((field, _), _)) => Err(Error::configuration(
            field,
            "differs from that of another client of this account in this process; use the same, \
             share the client, or give this one another account",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_state_directory_is_the_accounts_own() {
        fn with<T: AsRef<std::ffi::OsStr>>(set: &[(&str, T)]) -> Option<PathBuf> {
            state_dir(|name| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| PathBuf::from(value))
            })
        }
        let home = ("HOME", "/home/a");
        assert_eq!(with(&[home]), Some("/home/a/.local/state".into()));
        assert_eq!(with(&[home, ("XDG_STATE_HOME", "/x")]), Some("/x".into()));
        assert_eq!(with(&[home, ("XDG_STATE_HOME", "relative")]), with(&[home]));
        assert_eq!(with(&[home, ("STATE_DIRECTORY", "/s:/t")]), Some("/s".into()));
        assert_eq!(with::<&str>(&[]), None);
        let latin1 = |bytes| <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes);
        assert_eq!(
            with(&[("STATE_DIRECTORY", latin1(b"/caf\xe9:/t"))]),
            Some(latin1(b"/caf\xe9").into())
        );
    }
}
