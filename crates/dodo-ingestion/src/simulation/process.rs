//! A simulated process: its own spool, its own engine task, and the machine's clocks.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::disk::Machine;
use super::network::{Outbox, SimTransport};
use super::oracle::Number;
use crate::clock::Now;
use crate::config::{ApiKey, Config, Durability, NamespaceConfig};
use crate::engine::{Held, NamespaceTask};
use crate::id::IdSource;
use crate::shared::Shared;
use crate::spool::{Namespace, Seq, SpoolName, Writer, WriterSettings};
use crate::transport::Connect;

/// Where the processes meet.
pub(crate) const NAMESPACE: &str = "/state/dodo-ingestion/test_mode-0-a";

pub(crate) struct Process {
    pub(crate) shared: Arc<Shared>,
    pub(crate) task: Option<NamespaceTask>,
    /// When it is to be served next, by the true time.
    pub(crate) next: i64,
    pub(crate) stopped_until: i64,
    /// Of the calls whose callers were told nothing yet.
    pub(crate) receipts: VecDeque<(Seq, Number)>,
}

impl Process {
    /// Opens the namespace, as the registry does.
    pub(crate) fn start(
        number: u32,
        machine: &Machine,
        config: &Config,
        outbox: &Outbox,
        now: Now,
    ) -> std::io::Result<Self> {
        let disk = machine.disk(number);
        let ids = IdSource::with(|| Ok(fastrand::u64(..)))
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        let namespace = Namespace::open(disk, NAMESPACE.into())?;
        let durable = config.namespace.durability == Durability::Disk;
        if durable {
            namespace.sync_dirs()?;
        }
        let owned = namespace.create_spool(SpoolName(ids.next(now.wall)))?;
        let settings =
            WriterSettings { max_bytes: config.namespace.max_spool_bytes, sync: durable };
        let writer = Writer::new(namespace.clone(), owned, settings);
        let key = config.api_key.clone();
        let shared = Arc::new(Shared::new(config.namespace.clone(), writer, ids, key));
        let outbox = outbox.clone();
        let connect: Rc<Connect> = Rc::new(move |_: &NamespaceConfig, key: &ApiKey| {
            let key = key.expose().to_owned();
            Ok(Box::new(SimTransport { process: number, key, outbox: outbox.clone() }))
        });
        let task = Some(NamespaceTask::new(shared.clone(), namespace, connect));
        Ok(Self { shared, task, next: 0, stopped_until: 0, receipts: VecDeque::new() })
    }

    /// What it holds in memory as the sender.
    pub(crate) fn held(&self) -> Held {
        self.task.as_ref().and_then(NamespaceTask::held).unwrap_or_default()
    }

    pub(crate) fn sends(&self) -> bool {
        self.held().spools > 0
    }

    /// Runs the engine's task until it wants to sleep; returns for how long.
    pub(crate) fn serve(&mut self, now: Now) -> i64 {
        let Some(task) = &mut self.task else { return i64::MAX };
        self.shared.ids.redraw();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready((request, answer)) = task.poll_answer(&mut context) {
            task.answered(request, answer, now);
        }
        task.serve(now);
        (task.sleep_until(now).saturating_sub(now.mono) as i64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::alarm::AlarmKind;
    use crate::config::Builder;
    use crate::event::ApiCall;

    const WALL: i64 = 1_769_860_800_000;

    fn at(mono: u64) -> Now {
        Now { wall: WALL + mono as i64, mono }
    }

    struct Two {
        machine: Machine,
        first: Process,
        second: Process,
        told: Arc<Mutex<Vec<AlarmKind>>>,
    }

    /// Two processes of one account, of which the first is the sender.
    fn two() -> Two {
        let builder = Builder::new().api_key("sk").event_name("api_call").account("a");
        let config = builder.base_url("http://127.0.0.1:1").config(|_| None).unwrap();
        let (machine, outbox) = (Machine::new(1), Outbox::default());
        let start = |number| Process::start(number, &machine, &config, &outbox, at(1_000)).unwrap();
        let (mut first, second) = (start(1), start(2));
        let told: Arc<Mutex<Vec<AlarmKind>>> = Arc::default();
        let sink = told.clone();
        second
            .shared
            .alarms
            .add_callback(0, Arc::new(move |alarm| sink.lock().unwrap().push(alarm.kind)));
        first.serve(at(1_000));
        Two { machine, first, second, told }
    }

    #[test]
    fn a_sender_that_is_stopped_is_told_of_and_not_deposed() {
        let Two { machine, mut first, mut second, told } = two();
        for mono in (1_000..9_000).step_by(500) {
            first.serve(at(mono));
            second.serve(at(mono));
        }
        assert!(first.sends() && told.lock().unwrap().is_empty());
        for mono in (9_000..21_000).step_by(500) {
            second.serve(at(mono));
        }
        assert!(!second.sends());
        assert_eq!(*told.lock().unwrap(), [AlarmKind::SenderStalled]);
        machine.kill(1);
        second.serve(at(21_000));
        second.serve(at(21_500));
        assert!(second.sends(), "the dead are followed at the next election");
    }

    #[test]
    fn a_sender_that_meets_a_newer_format_lets_others_try_and_goes_on_if_none_can() {
        let Two { machine, mut first, second, .. } = two();
        let call = ApiCall::new("c").into();
        second.shared.accept(&call, "api_call", std::time::Duration::ZERO, at(1_000)).unwrap();
        let path = second.shared.writer.dir().join("segment-0000000000000000");
        let mut header = machine.read(&path).unwrap()[..40].to_vec();
        header[8..12].copy_from_slice(&[9, 0, 9, 0]);
        let crc = crc32c::crc32c(&header[..36]);
        header[36..].copy_from_slice(&crc.to_le_bytes());
        let file = machine.disk(1).open(&path, crate::disk::Open::Update).unwrap();
        file.write_all_at(&header, 0).unwrap();
        machine.kill(2);
        for mono in (2_000..6_000).step_by(500) {
            first.serve(at(mono));
        }
        assert!(!first.sends(), "it gave up its lock");
        for mono in (6_000..20_000).step_by(500) {
            first.serve(at(mono));
        }
        assert!(first.sends(), "nobody else is left");
    }
}
