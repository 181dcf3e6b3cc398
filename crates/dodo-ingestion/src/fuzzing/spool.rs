//! A spool directory, made line by line and then drained to its end. A line is a letter, a space and
//! its arguments; numbers are decimal.
//!
//! ```text
//! s FIRST SALT PREVIOUS      begin a segment, or go on with it
//! r TEXT                     append a record with the next number
//! p LENGTH                   the same, of so many bytes
//! R SEQ KIND ID TIME TEXT    append a record with this number, kind and length of the id
//! w TEXT · z COUNT           append bytes · zeros
//! f OFFSET BITS              flip bits of the segment
//! t COUNT                    cut so many bytes off
//! v VERSION OLDEST FIRST PREVIOUS    write another header
//! c SETTLED ATTEMPTED AT GENERATION · C TEXT    add a slot · bytes to the cursor
//! o TEXT                     add a line to the outcomes
//! n NAME                     make a file of another name
//! l RECORDS BYTES            read so many at once
//! x                          another sender takes over after every read that finds records
//! !                          the owner lives: read what is there, go on writing after it
//! ```

mod directory;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use self::directory::{Directory, Says, frame_of, is_segment_name, records_in, says, segment_name};
use crate::spool::{Damage, Drain, Outcomes, Record, Rejection, Seq, read_cursor};

/// Drains the directory that the input describes. It ends; whole records come back unchanged and in
/// order, once; what else there is, is handed out as damage or is the torn end of a segment.
pub fn spool(input: &[u8]) {
    let mut directory = Directory::new();
    let mut sender = Sender::default();
    for line in input.split(|byte| *byte == b'\n') {
        let Some((command, text)) = line.split_first() else { continue };
        let text = text.strip_prefix(b" ").unwrap_or(text);
        match command {
            b'l' => {
                let text = String::from_utf8_lossy(text);
                let mut numbers = text.split(' ').map(|word| word.parse::<usize>().unwrap_or(0));
                let [records, bytes] = std::array::from_fn(|_| numbers.next().unwrap_or(0).max(1));
                sender.limits = (records, bytes);
            }
            b'x' => sender.short_lived = true,
            b'!' => sender.drain(&mut directory, true),
            _ => directory.carry_out(*command, text),
        }
    }
    let disk = directory.namespace.disk();
    let outcome = |rejection: Rejection| _ = rejection.to_error();
    Outcomes::default().read_on(&**disk, directory.path(), outcome).unwrap();
    let _ = read_cursor(&**disk, directory.path());
    sender.drain(&mut directory, false);
    sender.check(&directory);
}

struct Sender {
    limits: (usize, usize),
    short_lived: bool,
    /// How many there were.
    senders: usize,
    /// Where the first sender found the cursor.
    began_at: Option<Seq>,
    settled: Seq,
    /// What the outcomes say was set aside: it does not come back.
    set_aside: BTreeSet<Seq>,
    seqs: Vec<Seq>,
    /// Of each segment, how many bytes were handed out as records, and where the last of them ends.
    read: BTreeMap<Seq, (usize, usize)>,
    damage: BTreeMap<(Seq, u64), Vec<u8>>,
    lost: Vec<Range<Seq>>,
    finished: bool,
}

impl Default for Sender {
    fn default() -> Self {
        let (limits, short_lived, began_at) = ((1_000, usize::MAX), false, None);
        let (senders, settled, set_aside, seqs, read) = Default::default();
        let (damage, lost, finished) = Default::default();
        Self {
            limits,
            short_lived,
            senders,
            began_at,
            settled,
            set_aside,
            seqs,
            read,
            damage,
            lost,
            finished,
        }
    }
}

impl Sender {
    fn open(&mut self, directory: &Directory, alive: bool) -> Drain {
        let set_aside = |rejection: Rejection| _ = self.set_aside.insert(rejection.seq);
        let disk = directory.namespace.disk();
        Outcomes::default().read_on(&**disk, directory.path(), set_aside).unwrap();
        let drain = Drain::open(&directory.namespace, Directory::name(), alive, &[]).unwrap();
        self.senders += 1;
        let settled = drain.cursor().settled;
        if self.began_at.is_none() {
            assert_eq!(settled, directory.settled());
            self.began_at = Some(settled);
            self.settled = settled;
        }
        assert_eq!(settled, self.settled, "the cursor is where it was left");
        drain
    }

    /// Reads and settles all that is there.
    fn drain(&mut self, directory: &mut Directory, alive: bool) {
        let mut drain = self.open(directory, alive);
        let bytes: usize = directory.segments.values().map(Vec::len).sum();
        let damage = self.damage.len();
        for reads in 0.. {
            // Each comes upon a record or damage, however little of that.
            let most = bytes / 48 + self.damage.len() - damage + 2;
            assert!(reads <= most, "{reads} reads of {bytes} bytes");
            let from = drain.position();
            let read = drain.read(self.limits.0, self.limits.1).unwrap();
            for damage in read.damage {
                self.take_damage(directory, damage);
            }
            self.lost.extend(read.lost);
            let records: Vec<&Record> = drain.records_from(from).collect();
            for record in &records {
                self.take(directory, record);
            }
            let seqs: Vec<Seq> = records.iter().map(|record| record.header.seq).collect();
            self.settle(&mut drain, &seqs);
            if drain.is_finished() {
                assert!(!alive && read.newer.is_none());
                self.finished = true;
                // A file that is not the spool's stays, and the directory with it.
                let is_removed = drain.remove().is_ok();
                let left = directory.namespace.disk().list(directory.path()).unwrap();
                assert_eq!(is_removed, left.is_empty(), "{left:?}");
                let is_ours = |name: &String| {
                    is_segment_name(name) || ["owner", "cursor", "outcomes"].contains(&&**name)
                };
                assert!(!left.iter().any(is_ours), "{left:?}");
                break;
            }
            if read.newer.is_some() || alive && seqs.is_empty() {
                break;
            }
            // Damage counts as passed when a record behind it is settled.
            if self.short_lived && !seqs.is_empty() {
                drain = self.open(directory, alive);
            }
        }
        directory.read_from_now_on();
    }

    fn take(&mut self, directory: &Directory, record: &Record) {
        let seq = record.header.seq;
        assert!(seq >= self.settled, "record {seq} was settled");
        assert!(
            self.seqs.last().is_none_or(|last| *last < seq),
            "record {seq} after {:?}",
            self.seqs
        );
        self.seqs.push(seq);
        // The segment that it belongs to before others, in whose bytes it may stand by chance.
        let own = directory.segments.range(..=seq).rev();
        let mut segments = own.chain(directory.segments.range(seq + 1..));
        let came_from = segments.find_map(|(first, bytes)| {
            let Says::Records { salt } = says(bytes, *first) else { return None };
            let frame = frame_of(record, salt);
            let (_, end) = self.read.get(first).copied().unwrap_or_default();
            let find = |from: usize| {
                let at = bytes[from..].windows(frame.len()).position(|part| part == frame)?;
                Some(from + at + frame.len())
            };
            Some((*first, frame.len(), find(end).or_else(|| find(0))?))
        });
        let (first, len, end) = came_from.unwrap_or_else(|| panic!("not in the file: {record:?}"));
        let (read, _) = self.read.get(&first).copied().unwrap_or_default();
        self.read.insert(first, (read + len, end));
    }

    fn take_damage(&mut self, directory: &Directory, damage: Damage) {
        let Damage { segment, offset, bytes, records, .. } = damage;
        assert!(records > 0 || !bytes.is_empty());
        if bytes.is_empty() {
            return; // records that are missing without a trace
        }
        let there = &directory.segments[&segment][offset as usize..];
        assert!(there.starts_with(&bytes), "damage at {offset} of segment {segment} is not there");
        let known = self.damage.insert((segment, offset), bytes);
        assert!(
            known.is_none() || self.senders > 1,
            "damage at {offset} of segment {segment} again"
        );
    }

    /// In two steps, so that the cursor has to wait for a gap.
    fn settle(&mut self, drain: &mut Drain, seqs: &[Seq]) {
        for odd in [true, false] {
            for (_, seq) in seqs.iter().enumerate().filter(|(nth, _)| (nth % 2 == 1) == odd) {
                drain.settle(*seq);
            }
            drain.commit().unwrap();
            drain.unlink_settled().unwrap();
            let settled = drain.cursor().settled;
            assert!(settled >= self.settled, "the cursor went back to {settled}");
            let gap = seqs.first().filter(|_| odd);
            assert!(gap.is_none_or(|gap| settled <= *gap), "settled to {settled} over {gap:?}");
            self.settled = settled;
        }
        assert!(seqs.last().is_none_or(|last| self.settled > *last));
    }

    /// Compares what came with what is in the files.
    fn check(&self, directory: &Directory) {
        let left = directory.namespace.disk().list(directory.path()).unwrap();
        if self.finished {
            assert!(!left.iter().any(|name| is_segment_name(name)), "{left:?}");
        }
        let began_at = self.began_at.unwrap_or_default();
        let segments: Vec<(Seq, &Vec<u8>)> =
            directory.segments.iter().map(|(first, bytes)| (*first, bytes)).collect();
        let newer = segments.iter().position(|(first, bytes)| says(bytes, *first) == Says::Newer);
        assert!(self.finished || newer.is_some());
        if let Some(newer) = newer
            && segments[newer].0 >= self.settled
        {
            assert!(left.contains(&segment_name(segments[newer].0)), "{left:?}");
        }
        let mut expected = Vec::new();
        for (nth, (first, bytes)) in segments[..newer.unwrap_or(segments.len())].iter().enumerate()
        {
            let Says::Records { salt } = says(bytes, *first) else { continue };
            // Nothing is promised of what follows a number that no owner gave.
            let Some((seqs, end)) = records_in(bytes, salt) else { return };
            let next = segments.get(nth + 1).map_or(Seq::MAX, |(first, _)| *first);
            if !seqs.iter().all(|seq| (*first..next).contains(seq)) {
                return;
            }
            let skips = seqs.iter().any(|seq| self.set_aside.contains(seq));
            let comes = |seq: &Seq| *seq >= began_at && !self.set_aside.contains(seq);
            expected.extend(seqs.into_iter().filter(comes));
            if *first >= began_at && self.finished && !skips {
                let (read, _) = self.read.get(first).copied().unwrap_or_default();
                let damaged = self.damage.range((*first, 0)..(*first, end as u64));
                let damaged: usize = damaged.map(|(_, bytes)| bytes.len()).sum();
                assert_eq!(40 + read + damaged, end, "bytes of segment {first} are missing");
            }
        }
        for lost in &self.lost {
            assert!(!lost.is_empty() && !expected.iter().any(|seq| lost.contains(seq)), "{lost:?}");
        }
        if newer.is_none() {
            assert_eq!(self.seqs, expected);
        } else {
            assert!(self.seqs.starts_with(&expected), "{:?}, expected {expected:?}", self.seqs);
        }
    }
}
