//! The bytes of one file: as they are read now, and as a power loss would leave them.

use std::ops::Range;

use fastrand::Rng;

/// What the disk writes at once.
const BLOCK: usize = 4096;
/// With more unsynced writes than this, the older half goes to the disk by itself.
const MOST_UNSYNCED: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Contents {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Write>,
}

#[derive(Debug)]
enum Write {
    Bytes { at: usize, bytes: Vec<u8>, in_place: bool },
    Truncate { len: usize },
}

impl Write {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Bytes { at, bytes, .. } => put(file, *at, bytes),
            Self::Truncate { len } => file.resize(*len, 0),
        }
    }

    fn len_after(&self, len: usize) -> usize {
        match self {
            Self::Bytes { at, bytes, .. } => len.max(at + bytes.len()),
            Self::Truncate { len } => *len,
        }
    }

    fn can_be_torn(&self) -> bool {
        match self {
            Self::Bytes { bytes, in_place, .. } => !in_place || bytes.len() > Contents::WHOLE_BYTES,
            Self::Truncate { .. } => false,
        }
    }

    fn is_append(&self) -> bool {
        matches!(self, Self::Bytes { in_place: false, .. })
    }
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if file.len() < end && !bytes.is_empty() {
        file.resize(end, 0);
    }
    if let Some(range) = file.get_mut(at..end) {
        range.copy_from_slice(bytes);
    }
}

impl Contents {
    /// A write in place of at most this many bytes is never torn.
    pub(super) const WHOLE_BYTES: usize = 32;

    pub(super) fn bytes(&self) -> &[u8] {
        &self.live
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        let (at, bytes) = (self.live.len(), bytes.to_vec());
        self.record(Write::Bytes { at, bytes, in_place: false });
    }

    pub(super) fn write_at(&mut self, bytes: &[u8], at: usize) {
        self.record(Write::Bytes { at, bytes: bytes.to_vec(), in_place: true });
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.record(Write::Truncate { len });
    }

    fn record(&mut self, write: Write) {
        write.apply(&mut self.live);
        self.unsynced.push(write);
        if self.unsynced.len() > MOST_UNSYNCED {
            self.write_back(MOST_UNSYNCED / 2);
        }
    }

    fn write_back(&mut self, writes: usize) {
        for write in self.unsynced.drain(..writes) {
            write.apply(&mut self.durable);
        }
    }

    pub(super) fn sync(&mut self) {
        self.write_back(self.unsynced.len());
    }

    /// A sync that failed: some writes never reach the disk, though they can be read until then.
    pub(super) fn fail_sync(&mut self, rng: &mut Rng) {
        self.unsynced.retain(|write| matches!(write, Write::Truncate { .. }) || rng.bool());
    }

    /// Leaves what survives, and says how that was decided. `stale` is what blocks may hold that
    /// belong to the file and were never written.
    pub(super) fn power_loss(&mut self, rng: &mut Rng, stale: &[u8]) -> Option<&'static str> {
        let mut how = None;
        if !self.unsynced.is_empty() {
            how = Some(match rng.u8(..4) {
                0 => {
                    self.sync();
                    "writes_kept"
                }
                1 => "writes_lost",
                2 => {
                    self.cut(rng);
                    "writes_cut"
                }
                _ => {
                    self.scramble(rng, stale);
                    "writes_scrambled"
                }
            });
        }
        self.unsynced.clear();
        self.live.clone_from(&self.durable);
        how
    }

    /// The writes up to one of them survive, and that one in part.
    fn cut(&mut self, rng: &mut Rng) {
        let whole = rng.usize(..self.unsynced.len());
        self.write_back(whole);
        let torn = &self.unsynced[0];
        if let Write::Bytes { at, bytes, .. } = torn
            && torn.can_be_torn()
        {
            put(&mut self.durable, *at, &bytes[..rng.usize(..bytes.len().max(1))]);
        }
    }

    /// Each block is as it was after some of the writes, and so is the length of the file.
    fn scramble(&mut self, rng: &mut Rng, stale: &[u8]) {
        let writes = self.unsynced.len();
        let mut lens = vec![self.durable.len()];
        for write in &self.unsynced {
            lens.push(write.len_after(lens[lens.len() - 1]));
        }
        let extent = lens.iter().copied().max().unwrap_or(0);
        let len_after = rng.usize(..=writes);
        let written: Vec<usize> = (0..extent.div_ceil(BLOCK))
            .map(|_| match rng.u8(..3) {
                0 => 0,
                1 => writes,
                _ => rng.usize(..=writes),
            })
            .collect();

        let mut file = std::mem::take(&mut self.durable);
        if !stale.is_empty() && self.unsynced.iter().all(Write::is_append) && rng.u8(..4) == 0 {
            let missing = extent - file.len();
            file.extend(stale.iter().cycle().take(missing));
        }
        file.resize(extent, 0);
        for (number, write) in self.unsynced.iter().enumerate() {
            let Write::Bytes { at, bytes, .. } = write else {
                if let Write::Truncate { len } = write
                    && number < len_after
                {
                    file[(*len).min(extent)..].fill(0);
                }
                continue;
            };
            let mut from = 0;
            while from < bytes.len() {
                let block = (at + from) / BLOCK;
                let until = bytes.len().min((block + 1) * BLOCK - at);
                let survives = if number < written[block] {
                    until - from
                } else if number == written[block] && write.can_be_torn() && rng.bool() {
                    rng.usize(..until - from)
                } else {
                    0
                };
                put(&mut file, at + from, &bytes[from..from + survives]);
                from = until;
            }
        }
        file.truncate(lens[len_after]);
        self.durable = file;
    }

    /// Harms a range of what is on the disk.
    pub(super) fn rot(&mut self, rng: &mut Rng) -> Range<usize> {
        // What rots was written.
        self.sync();
        let start = rng.usize(..self.live.len());
        let end = self.live.len().min(start + rng.usize(1..=512));
        let harm: Vec<u8> = match rng.u8(..3) {
            0 => self.live[start..end].iter().map(|byte| byte ^ (1 << rng.u8(..8))).collect(),
            1 => vec![0; end - start],
            _ => (start..end).map(|_| rng.u8(..)).collect(),
        };
        let on_disk = self.durable.len().clamp(start, end) - start;
        put(&mut self.live, start, &harm);
        if on_disk > 0 {
            put(&mut self.durable, start, &harm[..on_disk]);
        }
        start..end
    }
}
