//! The sender's end of a spool: the records that are being delivered, and what of them is settled.
//!
//! Records may be settled in any order; the cursor moves over those that are settled without a gap.
//! A segment in which everything is settled is unlinked, also behind a gap: one record that waits for
//! long keeps its own segment only. After a crash what was settled of that segment behind the gap is
//! sent again with the same ids, which costs a request.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cursor::{Cursor, CursorFile};
use super::outcomes::{self, Outcomes, Rejection};
use super::reader::{Found, Passed, Reader, Record, segment_name, segments};
use super::{Namespace, Place, Seq, SpoolName};
use crate::clock::WallMs;
use crate::disk::{Disk, DiskFile, Open, read_range};
use crate::planted::{Fault, is_planted};

/// A spool as its sender sees it.
#[derive(Debug)]
pub(crate) struct Drain {
    disk: Arc<dyn Disk>,
    name: SpoolName,
    dir: PathBuf,
    reader: Reader,
    cursor: CursorFile,
    unsettled: BTreeMap<Seq, Record>,
    /// What an earlier sender set aside behind a gap.
    set_aside: BTreeSet<Seq>,
    /// What was settled behind a gap when it was last drained.
    settled_before: Vec<Range<Seq>>,
    /// Segments that were read to their end and are still there.
    passed: Vec<Passed>,
    /// Held when the owner is dead and the spool adopted.
    owner: Option<Arc<dyn DiskFile>>,
    /// Whether the owner is this process.
    own: bool,
    /// Nothing follows what was read, for now; and never will.
    at_end: bool,
    exhausted: bool,
}

impl Drain {
    /// `untold` is what may have been set aside and not been written to the outcomes.
    pub(crate) fn open(
        namespace: &Namespace,
        name: SpoolName,
        own: bool,
        untold: &[Rejection],
    ) -> io::Result<Self> {
        let (disk, dir) = (namespace.disk().clone(), namespace.spool_dir(&name));
        let cursor = CursorFile::open(&*disk, &dir.join("cursor"))?;
        let settled = cursor.get().settled;
        let firsts = segments(&*disk, &dir)?;
        for pair in firsts.windows(2).filter(|pair| pair[1] <= settled) {
            disk.remove_file(&dir.join(segment_name(pair[0])))?;
        }
        let reader = Reader::new(disk.clone(), dir.clone(), settled);
        let mut set_aside = BTreeSet::new();
        Outcomes::default().read_on(&*disk, &dir, |rejection| {
            if rejection.seq >= settled {
                set_aside.insert(rejection.seq);
            }
        })?;
        let untold = untold.iter().filter(|rejection| rejection.seq >= settled);
        let untold: Vec<Rejection> =
            untold.filter(|rejection| set_aside.insert(rejection.seq)).cloned().collect();
        if !untold.is_empty() {
            outcomes::append(&*disk, &dir.join("outcomes"), &untold)?;
        }
        Ok(Self {
            disk,
            name,
            dir,
            reader,
            cursor,
            unsettled: BTreeMap::new(),
            set_aside,
            settled_before: Vec::new(),
            passed: Vec::new(),
            owner: None,
            own,
            at_end: false,
            exhausted: false,
        })
    }

    pub(crate) fn name(&self) -> &SpoolName {
        &self.name
    }

    pub(crate) fn cursor(&self) -> Cursor {
        self.cursor.get()
    }

    /// Whether its cursor is where others look for it.
    pub(crate) fn cursor_is_in_place(&self) -> bool {
        self.cursor.is_in_place(&*self.disk, &self.dir.join("cursor"))
    }

    pub(crate) fn put_cursor_back(&mut self) -> io::Result<()> {
        self.cursor.put_back(&*self.disk, &self.dir.join("cursor"))
    }

    /// Whether the owner lives. Takes the lock of one who does not, so that it stays dead.
    fn owner_alive(&mut self) -> io::Result<bool> {
        if is_planted(Fault::AdoptTheLiving) {
            self.owner = Some(self.disk.open(&self.dir.join("owner"), Open::Update)?);
            return Ok(false);
        }
        if self.own {
            return Ok(true);
        }
        if self.owner.is_none() {
            let owner = self.disk.open(&self.dir.join("owner"), Open::Update)?;
            if owner.try_lock()? {
                self.owner = Some(owner);
            }
        }
        Ok(self.owner.is_none())
    }

    /// Whether the owner is this process.
    pub(crate) fn is_own(&self) -> bool {
        self.own
    }

    /// Whether nothing of it waits, as far as was looked.
    pub(crate) fn is_idle(&self) -> bool {
        self.at_end && self.unsettled.is_empty()
    }

    /// Reads up to so many further records; [`Drain::records_from`] the position before has them.
    pub(crate) fn read(&mut self, max_records: usize, max_bytes: usize) -> io::Result<Found> {
        let alive = self.owner_alive()?;
        let mut found = self.reader.read(max_records, max_bytes, alive)?;
        (self.at_end, self.exhausted) = (found.at_end, found.exhausted);
        self.passed.append(&mut found.passed);
        for record in std::mem::take(&mut found.records) {
            let is_settled = is_within(&self.settled_before, record.header.seq);
            if !self.set_aside.remove(&record.header.seq) && !is_settled {
                self.unsettled.insert(record.header.seq, record);
            }
        }
        Ok(found)
    }

    /// The sequence number after the last record that was read.
    pub(crate) fn position(&self) -> Seq {
        self.reader.position()
    }

    pub(crate) fn records_from(&self, from: Seq) -> impl Iterator<Item = &Record> {
        self.unsettled.range(from..).map(|(_, record)| record)
    }

    /// The bytes that were found to be damaged, for as long as the cursor stands before them.
    pub(crate) fn damaged_bytes(&self, at: Place) -> io::Result<Vec<u8>> {
        match self.disk.open(&self.dir.join(segment_name(at.segment)), Open::Read) {
            // Somebody removed them.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            file => read_range(&*file?, at.offset, at.len),
        }
    }

    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.unsettled.values().map(|record| record.header.frame_len()).sum()
    }

    pub(crate) fn record(&self, seq: Seq) -> Option<&Record> {
        self.unsettled.get(&seq)
    }

    /// Notes, before a request, that records below `end` are part of it.
    pub(crate) fn record_attempt(&mut self, end: Seq, now: WallMs, sync: bool) -> io::Result<()> {
        self.cursor.attempt(end, now, sync)
    }

    /// Writes down why records are not billed; they are to be settled after this.
    pub(crate) fn record_outcomes(&self, rejections: &[Rejection]) -> io::Result<()> {
        outcomes::append(&*self.disk, &self.dir.join("outcomes"), rejections)
    }

    /// Marks a record as settled. [`Drain::commit`] makes it last.
    pub(crate) fn settle(&mut self, seq: Seq) {
        self.unsettled.remove(&seq);
    }

    /// What is settled that the cursor cannot move over.
    pub(crate) fn settled_behind_a_gap(&self) -> Vec<Range<Seq>> {
        let (mut from, end) = (self.cursor.get().settled, self.reader.position());
        let mut settled = Vec::new();
        for seq in self.unsettled.keys().copied() {
            settled.push(from..seq);
            from = seq + 1;
        }
        settled.push(from..end);
        // And what was not read again.
        settled.extend(self.settled_before.iter().map(|range| range.start.max(end)..range.end));
        settled.retain(|range| !range.is_empty());
        settled
    }

    /// Passes over what was [settled behind a gap](Self::settled_behind_a_gap) when it was last drained.
    pub(crate) fn pass_over(&mut self, settled: Vec<Range<Seq>>) {
        self.settled_before = settled;
    }

    /// Moves the cursor over what is settled.
    pub(crate) fn commit(&mut self) -> io::Result<()> {
        let first_unsettled = self.unsettled.first_key_value().map(|(seq, _)| *seq);
        self.cursor.settle(first_unsettled.unwrap_or(self.reader.position()))?;
        if first_unsettled.is_none() && self.at_end {
            self.cursor.nothing_is_attempted()?;
        }
        Ok(())
    }

    /// Unlinks segments of which all is settled; after [`Drain::commit`].
    pub(crate) fn unlink_settled(&mut self) -> io::Result<()> {
        let (disk, unsettled) = (&*self.disk, &self.unsettled);
        let mut result = Ok(());
        self.passed.retain(|Passed { segment, end }| {
            let waits = unsettled.range(segment..end).next().is_some()
                && !is_planted(Fault::UnlinkTooEarly);
            if !waits && result.is_ok() {
                result = disk.remove_file(&self.dir.join(segment_name(*segment)));
            }
            waits || result.is_err()
        });
        result
    }

    /// Whether the owner is dead and everything it accepted is settled.
    pub(crate) fn is_finished(&self) -> bool {
        self.owner.is_some() && self.exhausted && self.unsettled.is_empty()
    }

    /// Removes the spool's files.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove_spool(&*self.disk, &self.dir)
    }
}

/// `ranges` are in order.
fn is_within(ranges: &[Range<Seq>], seq: Seq) -> bool {
    let at = ranges.partition_point(|range| range.end <= seq);
    ranges.get(at).is_some_and(|range| range.contains(&seq))
}

/// Removes a spool in the order that leaves nothing behind which looks alive or unsent. The cursor goes
/// last: whoever comes upon the rest would make it anew, as if nothing had been settled.
pub(crate) fn remove_spool(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    for first in segments(disk, dir)? {
        disk.remove_file(&dir.join(segment_name(first)))?;
    }
    for name in ["outcomes", "owner", "cursor"] {
        disk.remove_file(&dir.join(name))?;
    }
    disk.remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::super::{Draft, Writer, WriterSettings};
    use super::*;
    use crate::simulation::Machine;

    /// A spool of one call, whose owner and sender are processes of their own.
    fn settled_spool(machine: &Machine) -> Drain {
        let namespace = |process| Namespace::open(machine.disk(process), "ns".into()).unwrap();
        let (owner, name) = (namespace(1), SpoolName("one".into()));
        let settings = WriterSettings { max_bytes: 4 << 20, sync: false };
        let writer =
            Writer::new(owner.clone(), owner.create_spool(name.clone()).unwrap(), settings);
        let mut call = Draft::event("id");
        call.json().extend_from_slice(b"{}");
        writer.append(&mut call, 1).unwrap();
        machine.kill(1);
        let mut drain = Drain::open(&namespace(2), name, false, &[]).unwrap();
        while !drain.read(10, usize::MAX).unwrap().exhausted {}
        drain.settle(0);
        drain.commit().unwrap();
        assert!(drain.is_finished());
        drain
    }

    #[test]
    fn what_a_disk_forgot_that_failed_counts_as_settled_though_no_call_follows() {
        let machine = Machine::new(0);
        let namespace = Namespace::open(machine.disk(1), "ns".into()).unwrap();
        let name = SpoolName("one".into());
        let owned = namespace.create_spool(name.clone()).unwrap();
        let settings = WriterSettings { max_bytes: 4 << 20, sync: true };
        let writer = Writer::new(namespace.clone(), owned, settings);
        writer.append(&mut Draft::event("first"), 1).unwrap();
        machine.faults(|faults| faults.sync_fails = 1.0);
        writer.append(&mut Draft::event("second"), 1).unwrap_err();
        machine.faults(|faults| faults.sync_fails = 0.0);
        machine.disk(1).remove_file(&writer.dir().join(segment_name(0))).unwrap();
        let mut drain = Drain::open(&namespace, name, true, &[]).unwrap();
        drain.read(10, usize::MAX).unwrap();
        assert_eq!(drain.position(), 0);
        writer.look_after(1, i64::MAX).unwrap();
        drain.read(10, usize::MAX).unwrap();
        assert_eq!(drain.position(), writer.next_seq());
    }

    #[test]
    fn what_was_settled_behind_a_gap_is_passed_over_when_a_spool_is_drained_again() {
        let machine = Machine::new(0);
        let namespace = Namespace::open(machine.disk(1), "ns".into()).unwrap();
        let name = SpoolName("one".into());
        let settings = WriterSettings { max_bytes: 4 << 20, sync: false };
        let owned = namespace.create_spool(name.clone()).unwrap();
        let writer = Writer::new(namespace.clone(), owned, settings);
        (0..7).for_each(|_| _ = writer.append(&mut Draft::event("id"), 1).unwrap());
        let open = || Drain::open(&namespace, name.clone(), true, &[]).unwrap();
        let mut drain = open();
        drain.read(6, usize::MAX).unwrap();
        for seq in [0, 2, 3, 5] {
            drain.settle(seq);
        }
        drain.commit().unwrap();
        let settled = drain.settled_behind_a_gap();
        assert_eq!(settled, [2..4, 5..6]);

        let mut again = open();
        again.pass_over(settled.clone());
        assert_eq!(again.settled_behind_a_gap(), settled);
        again.read(2, usize::MAX).unwrap();
        assert_eq!(again.settled_behind_a_gap(), [2..3, 3..4, 5..6]);
        again.read(10, usize::MAX).unwrap();
        let left: Vec<Seq> = again.records_from(0).map(|record| record.header.seq).collect();
        assert_eq!(left, [1, 4, 6]);
    }

    #[test]
    fn a_removal_that_broke_off_is_finished_and_leaves_no_cursor_that_goes_back() {
        let mut broke_off = 0;
        for operations in 0.. {
            let machine = Machine::new(0);
            let drain = settled_spool(&machine);
            machine.kill_after(2, operations);
            let removed = drain.remove().is_ok();
            let namespace = Namespace::open(machine.disk(3), "ns".into()).unwrap();
            for name in namespace.spools().unwrap() {
                broke_off += 1;
                if namespace.remove_if_empty(&name) {
                    continue;
                }
                let mut drain = Drain::open(&namespace, name, false, &[]).unwrap();
                assert_eq!(drain.cursor().settled, 1, "after {operations} operations");
                drain.read(10, usize::MAX).unwrap();
                assert!(drain.is_finished());
                drain.remove().unwrap();
            }
            assert_eq!(namespace.spools().unwrap(), []);
            if removed {
                break;
            }
        }
        assert!(broke_off > 4);
    }
}
