//! The files of a spool, made line by line; and their reading once more, from the description of the
//! format and with none of the code that reads them otherwise.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, MemoryDisk, Open};
use crate::spool::{Namespace, Record, Seq, SpoolName};

const SEGMENT_HEADER: usize = 40;
const RECORD_HEADER: usize = 48;
const MAX_BODY: usize = 1 << 20;
const MAX_TOTAL: usize = 64 << 10;
const MAX_FILES: usize = 64;

/// Everything in a record but its body and the two fields that follow from the rest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields {
    pub(super) seq: Seq,
    pub(super) accepted_at: i64,
    pub(super) occurred_at: i64,
    pub(super) delay_ms: u32,
    pub(super) group: u64,
    pub(super) kind: u8,
    pub(super) metadata_pairs: u8,
    pub(super) id_len: u16,
}

pub(super) fn frame(fields: Fields, body: &[u8], salt: u32) -> Vec<u8> {
    let len = (body.len() as u32).to_le_bytes();
    let mut rest = Vec::new();
    rest.extend(fields.seq.to_le_bytes());
    rest.extend(fields.accepted_at.to_le_bytes());
    rest.extend(fields.occurred_at.to_le_bytes());
    rest.extend(fields.delay_ms.to_le_bytes());
    rest.extend(fields.group.to_le_bytes());
    rest.extend([fields.kind, fields.metadata_pairs]);
    rest.extend(fields.id_len.to_le_bytes());
    rest.extend(body);
    let crc = crc32c::crc32c(&[&salt.to_le_bytes()[..], &rest, &len].concat());
    [&len[..], &crc.to_le_bytes(), &rest].concat()
}

/// The frame that a record was read from, if it was read right.
pub(super) fn frame_of(record: &Record, salt: u32) -> Vec<u8> {
    let header = &record.header;
    let fields = Fields {
        seq: header.seq,
        accepted_at: header.accepted_at,
        occurred_at: header.occurred_at,
        delay_ms: header.delay_ms,
        group: header.group,
        kind: header.kind as u8,
        metadata_pairs: header.metadata_pairs,
        id_len: header.id_len,
    };
    frame(fields, &[record.event_id(), record.json()].concat(), salt)
}

fn header(version: u16, oldest: u16, salt: u32, first: Seq, previous: Seq) -> Vec<u8> {
    let mut bytes = b"DODOSPL\n".to_vec();
    bytes.extend(version.to_le_bytes());
    bytes.extend(oldest.to_le_bytes());
    bytes.extend(salt.to_le_bytes());
    bytes.extend(first.to_le_bytes());
    bytes.extend(previous.to_le_bytes());
    bytes.extend(65_536_u32.to_le_bytes());
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    Records { salt: u32 },
    Newer,
    Nothing,
}

pub(super) fn says(bytes: &[u8], first: Seq) -> Says {
    let Some(header) = bytes.get(..SEGMENT_HEADER) else { return Says::Nothing };
    let whole = number(&header[36..]) == u64::from(crc32c::crc32c(&header[..36]));
    match header {
        _ if !whole || !header.starts_with(b"DODOSPL\n") => Says::Nothing,
        _ if number(&header[10..12]) > 2 => Says::Newer,
        _ if number(&header[16..24]) != first => Says::Nothing,
        _ => Says::Records { salt: number(&header[12..16]) as u32 },
    }
}

/// The sequence number and length of the whole record that stands here.
fn whole(bytes: &[u8], salt: u32) -> Option<(Seq, usize)> {
    let header = bytes.get(..RECORD_HEADER)?;
    let body = number(&header[..4]) as usize;
    let plausible = body <= MAX_BODY
        && matches!(header[44], 1 | 2)
        && number(&header[46..48]) as usize <= body
        && number(&header[8..16]) < Seq::MAX;
    let rest = plausible.then(|| bytes.get(8..RECORD_HEADER + body)).flatten()?;
    let crc = crc32c::crc32c(&[&salt.to_le_bytes()[..], rest, &header[..4]].concat());
    (number(&header[4..8]) == u64::from(crc))
        .then(|| (number(&header[8..16]), RECORD_HEADER + body))
}

/// The whole records of a segment, and where the last of them ends. `None` where one follows another
/// whose number is not lower: no owner writes that.
pub(super) fn records_in(bytes: &[u8], salt: u32) -> Option<(Vec<Seq>, usize)> {
    let mut seqs: Vec<Seq> = Vec::new();
    let (mut at, mut end) = (SEGMENT_HEADER, SEGMENT_HEADER);
    while at < bytes.len() {
        let found = whole(&bytes[at..], salt);
        let follows = |seq| seqs.last().is_none_or(|last| seq > *last);
        match found {
            Some((seq, len)) if follows(seq) => {
                seqs.push(seq);
                at += len;
                end = at;
            }
            Some(_) if at == end => return None,
            _ => at += 1,
        }
    }
    Some((seqs, end))
}

#[derive(Debug)]
pub(super) struct Directory {
    pub(super) namespace: Namespace,
    disk: MemoryDisk,
    path: PathBuf,
    /// What each segment holds or held, whether it is still there or not.
    pub(super) segments: BTreeMap<Seq, Vec<u8>>,
    cursor: Vec<u8>,
    total: usize,
    current: Option<Seq>,
    next: Seq,
    /// It is being read: from now on, as its owner would, it is only added to.
    pub(super) being_read: bool,
}

impl Directory {
    pub(super) fn new() -> Self {
        let disk = MemoryDisk::default();
        let namespace = Namespace::open(Arc::new(disk.clone()), "ns".into()).unwrap();
        let path = namespace.spool_dir(&Self::name());
        let (segments, cursor) = (BTreeMap::new(), Vec::new());
        let (total, current, next, being_read) = (0, None, 0, false);
        Self { namespace, disk, path, segments, cursor, total, current, next, being_read }
    }

    pub(super) fn name() -> SpoolName {
        SpoolName("one".into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the cursor's whole slots say that the spool is settled.
    pub(super) fn settled(&self) -> Seq {
        let slots = self.cursor.chunks_exact(32).take(2);
        slots
            .filter(|slot| number(&slot[28..]) == u64::from(crc32c::crc32c(&slot[..28])))
            .map(|slot| number(&slot[..8]))
            .max()
            .unwrap_or_default()
    }

    fn write(&mut self, name: &str, bytes: &[u8], offset: Option<usize>) {
        let file = self.disk.open(&self.path.join(name), Open::Append).unwrap();
        match offset {
            Some(offset) => file.write_all_at(bytes, offset as u64).unwrap(),
            None => assert_eq!(file.append(bytes).unwrap(), bytes.len()),
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        let Some(first) = self.current else { return };
        if self.total + bytes.len() > MAX_TOTAL {
            return;
        }
        self.total += bytes.len();
        self.segments.entry(first).or_default().extend(bytes);
        self.write(&segment_name(first), bytes, None);
    }

    fn begin_segment(&mut self, first: Seq, salt: u32, previous: Option<Seq>) {
        let follows = self.segments.keys().next_back().is_none_or(|last| *last < first);
        if self.segments.len() == MAX_FILES || self.being_read && !follows {
            return;
        }
        self.current = Some(first);
        self.next = first;
        if !self.segments.contains_key(&first) {
            let before =
                self.segments.range(..first).next_back().map_or(first, |(first, _)| *first);
            self.append(&header(1, 1, salt, first, previous.unwrap_or(before)));
        }
    }

    fn overwrite(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let Some(first) = self.current else { return };
        let Some(bytes) = self.segments.get_mut(&first).filter(|_| !self.being_read) else {
            return;
        };
        change(bytes);
        let bytes = bytes.clone();
        self.disk.remove_file(&self.path.join(segment_name(first))).unwrap();
        self.write(&segment_name(first), &bytes, None);
    }

    fn salt(&self) -> u32 {
        let first = self.current.unwrap_or_default();
        match self.segments.get(&first).map(|bytes| says(bytes, first)) {
            Some(Says::Records { salt }) => salt,
            _ => 0,
        }
    }

    fn record(&mut self, fields: Fields, body: &[u8]) {
        let frame = frame(fields, body, self.salt());
        self.append(&frame);
        self.next = fields.seq.wrapping_add(1);
    }

    /// From now on only what an owner does, who adds to the highest segment.
    pub(super) fn read_from_now_on(&mut self) {
        self.being_read = true;
        if self.current != self.segments.keys().next_back().copied() {
            self.current = None;
        }
    }

    /// See the [module](super) for the lines.
    pub(super) fn carry_out(&mut self, command: u8, text: &[u8]) {
        let mut words = text.splitn(5, |byte| *byte == b' ');
        let mut word = || words.next().unwrap_or_default();
        let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse::<u64>().ok();
        let event = Fields { kind: 1, id_len: 2, seq: self.next, ..Fields::default() };
        match command {
            b's' => {
                let first = number(word()).unwrap_or(self.next);
                let salt = number(word()).unwrap_or(7) as u32;
                self.begin_segment(first, salt, number(word()));
            }
            b'r' => self.record(event, &[b"id", text].concat()),
            b'p' => {
                let len = number(word()).unwrap_or_default().min(10_000) as usize;
                self.record(event, &[&b"id"[..], &vec![b'x'; len]].concat());
            }
            b'R' => {
                let seq = number(word()).unwrap_or(self.next);
                let kind = number(word()).unwrap_or(1) as u8;
                let id_len = number(word()).unwrap_or_default() as u16;
                let at = number(word()).unwrap_or_default();
                let fields = Fields {
                    seq,
                    accepted_at: at as i64,
                    occurred_at: (at as i64).wrapping_neg(),
                    delay_ms: at as u32,
                    group: at,
                    kind,
                    metadata_pairs: at as u8,
                    id_len,
                };
                self.record(fields, word());
            }
            b'w' => self.append(text),
            b'z' => self.append(&vec![0; number(word()).unwrap_or_default().min(10_000) as usize]),
            b'f' => {
                let (at, bits) = (number(word()), number(word()));
                self.overwrite(|bytes| {
                    let byte = at.and_then(|at| bytes.get_mut(at as usize));
                    if let Some(byte) = byte {
                        *byte ^= bits.unwrap_or(1) as u8;
                    }
                });
            }
            b't' => {
                let cut = number(word()).unwrap_or(1) as usize;
                self.overwrite(|bytes| bytes.truncate(bytes.len().saturating_sub(cut)));
            }
            b'v' => {
                let (version, oldest) = (number(word()), number(word()));
                let first = number(word()).or(self.current).unwrap_or_default();
                let previous = number(word()).unwrap_or_default();
                let [version, oldest] = [version, oldest].map(|n| n.unwrap_or(3) as u16);
                let new = header(version, oldest, self.salt(), first, previous);
                self.overwrite(|bytes| bytes.iter_mut().zip(new).for_each(|(old, new)| *old = new));
            }
            _ => self.carry_out_beside(command, text),
        }
    }

    /// What concerns the other files of the directory.
    fn carry_out_beside(&mut self, command: u8, text: &[u8]) {
        if self.being_read {
            return; // only its sender writes these
        }
        match command {
            b'c' => {
                let numbers = String::from_utf8_lossy(text);
                let mut numbers = numbers.split(' ').map(|word| word.parse::<u64>().unwrap_or(0));
                let [settled, attempted, at, generation] =
                    std::array::from_fn(|_| numbers.next().unwrap_or_default().to_le_bytes());
                let mut slot = [&settled[..], &attempted, &at, &generation[..4]].concat();
                slot.extend(crc32c::crc32c(&slot).to_le_bytes());
                self.append_to_cursor(&slot);
            }
            b'C' => self.append_to_cursor(text),
            b'o' => self.write("outcomes", &[text, b"\n"].concat(), None),
            b'n' => {
                let name = String::from_utf8_lossy(text).into_owned();
                let ours = ["", ".", "..", "owner", "cursor", "outcomes"].contains(&&*name);
                if !ours && !name.contains(['/', '\0']) && !is_segment_name(&name) {
                    self.write(&name, b"DODOSPL\n", Some(0));
                }
            }
            _ => {}
        }
    }

    fn append_to_cursor(&mut self, bytes: &[u8]) {
        if self.cursor.len() < 256 {
            self.cursor.extend(bytes);
            self.write("cursor", bytes, None);
        }
    }
}

pub(super) fn segment_name(first: Seq) -> String {
    format!("segment-{first:016x}")
}

/// Whether a file with this name is a segment: eight bytes of hexadecimal digits in lower case.
pub(super) fn is_segment_name(name: &str) -> bool {
    let first = name.strip_prefix("segment-").and_then(|hex| Seq::from_str_radix(hex, 16).ok());
    first.is_some_and(|first| segment_name(first) == name)
}
