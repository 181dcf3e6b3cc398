//! Bytes on disk: the segment header and the record frame. All numbers are little-endian.
//!
//! ```text
//! segment header, 40 bytes            record, 48 bytes and a body
//!   0  magic "DODOSPL\n"                0  body length         u32
//!   8  format version       u16         4  CRC-32C             u32  of salt, all after it, length
//!  10  oldest reader        u16         8  sequence number     u64
//!  12  salt                 u32        16  accepted at         i64  ms since 1970
//!  16  first sequence       u64        24  occurred at         i64  ms since 1970
//!  24  first sequence of               32  delay               u32  ms until it is due
//!      the segment before   u64        36  group               u64
//!  32  allotted bytes       u32        44  kind                u8
//!  36  CRC-32C of 0..36     u32
//!                                      45  metadata pairs      u8
//!                                      46  length of the id    u16
//!                                      48  event id, then the event's JSON without a timestamp
//! ```
//!
//! The salt is a random number of the segment's own, so that a stale block of another segment,
//! brought back by a crashed file system, does not pass for a record of this one. The first segment
//! names itself as the one before it.
//!
//! Of version 1 are segments that grow by what is appended. Those of version 2 have their allotted
//! length from the start and are written through memory: zeros stand where no record is yet, and a
//! record's length is written last. They are cut to what they hold when their owner leaves them.

use crate::clock::WallMs;
use crate::planted::{Fault, is_planted};

use super::Seq;

const MAGIC: &[u8; 8] = b"DODOSPL\n";
/// The version of segments that are appended to. The code of each version can read older ones.
const APPENDED: u16 = 1;
/// The version of segments that are written through memory, and the newest that this code can read.
const MAPPED: u16 = 2;

pub(crate) const SEGMENT_HEADER_BYTES: usize = 40;
const SEGMENT_CRC_AT: usize = SEGMENT_HEADER_BYTES - 4;
pub(crate) const RECORD_HEADER_BYTES: usize = 48;
/// No event that passes validation comes near it; a length beyond it is damage.
pub(crate) const MAX_BODY_BYTES: usize = 1 << 20;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// An event to be billed.
    Event = 1,
    /// Everything before it is due now.
    Flush = 2,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Event),
            2 => Some(Self::Flush),
            _ => None,
        }
    }
}

/// A record without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) body_len: u32,
    pub(crate) seq: Seq,
    pub(crate) accepted_at: WallMs,
    pub(crate) occurred_at: WallMs,
    pub(crate) delay_ms: u32,
    pub(crate) group: u64,
    pub(crate) kind: Kind,
    pub(crate) metadata_pairs: u8,
    pub(crate) id_len: u16,
}

impl Header {
    pub(crate) fn frame_len(&self) -> usize {
        RECORD_HEADER_BYTES + self.body_len as usize
    }
}

/// A record being made: everything but its sequence number and the time of acceptance, which it
/// gets when it is appended.
#[derive(Debug)]
pub(crate) struct Draft {
    frame: Vec<u8>,
    pub(crate) occurred_at: WallMs,
    pub(crate) delay_ms: u32,
    pub(crate) group: u64,
    pub(crate) kind: Kind,
    pub(crate) metadata_pairs: u8,
    id_len: u16,
}

impl Draft {
    /// A draft of an event; its JSON is to be appended to [`Draft::json`].
    pub(crate) fn event(event_id: &str) -> Self {
        let mut frame = Vec::with_capacity(512);
        frame.resize(RECORD_HEADER_BYTES, 0);
        frame.extend_from_slice(event_id.as_bytes());
        Self {
            frame,
            occurred_at: 0,
            delay_ms: 0,
            group: 0,
            kind: Kind::Event,
            metadata_pairs: 0,
            id_len: event_id.len() as u16, // checked by `validate` before it is appended
        }
    }

    /// A record that makes all before it due.
    pub(crate) fn flush() -> Self {
        Self { kind: Kind::Flush, ..Self::event("") }
    }

    pub(crate) fn json(&mut self) -> &mut Vec<u8> {
        &mut self.frame
    }

    pub(crate) fn frame_len(&self) -> usize {
        self.frame.len()
    }

    /// Fills in the header and returns the frame as it is written.
    pub(crate) fn seal(&mut self, seq: Seq, accepted_at: WallMs, salt: u32) -> &[u8] {
        let body_len = (self.frame.len() - RECORD_HEADER_BYTES) as u32;
        let frame = &mut self.frame;
        frame[0..4].copy_from_slice(&body_len.to_le_bytes());
        frame[8..16].copy_from_slice(&seq.to_le_bytes());
        frame[16..24].copy_from_slice(&accepted_at.to_le_bytes());
        frame[24..32].copy_from_slice(&self.occurred_at.to_le_bytes());
        frame[32..36].copy_from_slice(&self.delay_ms.to_le_bytes());
        frame[36..44].copy_from_slice(&self.group.to_le_bytes());
        frame[44] = self.kind as u8;
        frame[45] = self.metadata_pairs;
        frame[46..48].copy_from_slice(&self.id_len.to_le_bytes());
        let crc = record_crc(salt, frame);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        frame
    }
}

fn record_crc(salt: u32, frame: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&salt.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &frame[8..]), &frame[0..4])
}

/// What stands at the start of some bytes of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Whole(Header),
    /// The bytes end before the record does.
    Incomplete,
    /// A record without its length, which is written last: nothing, or the beginning of one.
    Uncommitted,
    /// No record that was written whole begins like this.
    Bad,
}

pub(crate) fn parse_record(bytes: &[u8], salt: u32) -> Parsed {
    if bytes.len() < RECORD_HEADER_BYTES {
        return Parsed::Incomplete;
    }
    let body_len = u32_at(bytes, 0);
    let id_len = u16::from_le_bytes([bytes[46], bytes[47]]);
    // A flush has no body: it is committed when its checksum is right.
    let bad = if body_len == 0 { Parsed::Uncommitted } else { Parsed::Bad };
    let Some(kind) = Kind::from_byte(bytes[44]) else { return bad };
    let seq = u64_at(bytes, 8);
    // No record has the last number: the one after it would have none.
    if body_len as usize > MAX_BODY_BYTES || u32::from(id_len) > body_len || seq == Seq::MAX {
        return bad;
    }
    let header = Header {
        body_len,
        seq,
        accepted_at: u64_at(bytes, 16).cast_signed(),
        occurred_at: u64_at(bytes, 24).cast_signed(),
        delay_ms: u32_at(bytes, 32),
        group: u64_at(bytes, 36),
        kind,
        metadata_pairs: bytes[45],
        id_len,
    };
    match bytes.get(..header.frame_len()) {
        None => Parsed::Incomplete,
        Some(frame) if record_crc(salt, frame) == u32_at(bytes, 4) => Parsed::Whole(header),
        Some(_) if is_planted(Fault::SkipTheChecksum) => Parsed::Whole(header),
        Some(_) => bad,
    }
}

/// Whether the bytes are a record that was written whole, and whose length is another now.
pub(crate) fn is_whole_but_for_its_length(bytes: &[u8], salt: u32) -> bool {
    let Some(body_len) = bytes.len().checked_sub(RECORD_HEADER_BYTES) else { return false };
    let mut frame = bytes.to_vec();
    frame[0..4].copy_from_slice(&(body_len as u32).to_le_bytes());
    record_crc(salt, &frame) == u32_at(bytes, 4)
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentInfo {
    pub(crate) first_seq: Seq,
    /// The first sequence number of the segment that its owner wrote before; its own for the first.
    pub(crate) previous: Seq,
    pub(crate) salt: u32,
    /// The bytes that it may grow to.
    pub(crate) allotted: u32,
    /// It has these from the start, and is written through memory.
    pub(crate) is_mapped: bool,
}

/// What a segment's first bytes say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SegmentHeader {
    Readable(SegmentInfo),
    /// Written by a version whose records this one cannot read.
    Newer {
        version: u16,
    },
    Incomplete,
    Bad,
}

pub(crate) fn segment_header(info: SegmentInfo) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[0..8].copy_from_slice(MAGIC);
    let version = if info.is_mapped { MAPPED } else { APPENDED };
    header[8..10].copy_from_slice(&version.to_le_bytes());
    // The oldest version whose code can read it.
    header[10..12].copy_from_slice(&version.to_le_bytes());
    header[12..16].copy_from_slice(&info.salt.to_le_bytes());
    header[16..24].copy_from_slice(&info.first_seq.to_le_bytes());
    header[24..32].copy_from_slice(&info.previous.to_le_bytes());
    header[32..36].copy_from_slice(&info.allotted.to_le_bytes());
    let crc = crc32c::crc32c(&header[..SEGMENT_CRC_AT]);
    header[SEGMENT_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    header
}

pub(crate) fn parse_segment_header(bytes: &[u8]) -> SegmentHeader {
    let Some(header) = bytes.get(..SEGMENT_HEADER_BYTES) else { return SegmentHeader::Incomplete };
    let crc = crc32c::crc32c(&header[..SEGMENT_CRC_AT]);
    if &header[0..8] != MAGIC || crc != u32_at(header, SEGMENT_CRC_AT) {
        return SegmentHeader::Bad;
    }
    let oldest_reader = u16::from_le_bytes([header[10], header[11]]);
    if oldest_reader > MAPPED {
        return SegmentHeader::Newer { version: u16::from_le_bytes([header[8], header[9]]) };
    }
    SegmentHeader::Readable(SegmentInfo {
        first_seq: u64_at(header, 16),
        previous: u64_at(header, 24),
        salt: u32_at(header, 12),
        allotted: u32_at(header, 32),
        is_mapped: oldest_reader >= MAPPED,
    })
}

/// The caller has checked that the bytes are there.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The caller has checked that the bytes are there.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed(json: &[u8], seq: Seq, salt: u32) -> Vec<u8> {
        let mut draft = Draft::event("id-1");
        draft.json().extend_from_slice(json);
        draft.occurred_at = -5;
        draft.delay_ms = 1000;
        draft.group = 77;
        draft.metadata_pairs = 3;
        draft.seal(seq, 1_767_323_045_678, salt).to_vec()
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let frame = sealed(b"{}", 9, 42);
        let Parsed::Whole(header) = parse_record(&frame, 42) else { panic!("not whole") };
        assert_eq!(
            header,
            Header {
                body_len: 6,
                seq: 9,
                accepted_at: 1_767_323_045_678,
                occurred_at: -5,
                delay_ms: 1000,
                group: 77,
                kind: Kind::Event,
                metadata_pairs: 3,
                id_len: 4,
            }
        );
        assert_eq!(header.frame_len(), frame.len());
        assert_eq!(parse_record(&frame, 43), Parsed::Bad);
    }

    #[test]
    fn what_has_no_length_yet_is_not_committed() {
        let mut frame = sealed(b"{}", 9, 42);
        frame[..4].fill(0);
        assert_eq!(parse_record(&frame, 42), Parsed::Uncommitted);
        assert_eq!(parse_record(&[0; 100], 42), Parsed::Uncommitted);
        let mut flush = Draft::flush();
        let flush = flush.seal(9, 1, 42).to_vec();
        assert!(matches!(parse_record(&flush, 42), Parsed::Whole(_)));
        for missing in 4..RECORD_HEADER_BYTES {
            let mut torn = flush.clone();
            torn[missing..].fill(0);
            let parsed = parse_record(&torn, 42);
            assert!(parsed == Parsed::Uncommitted || torn == flush, "{missing}: {parsed:?}");
        }
    }

    #[test]
    fn every_cut_is_incomplete_and_every_flipped_bit_is_seen() {
        let frame = sealed(b"{\"event_id\":\"id-1\"}", 9, 42);
        for cut in 0..frame.len() {
            assert_eq!(parse_record(&frame[..cut], 42), Parsed::Incomplete, "cut at {cut}");
        }
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // A longer length can look like a record that goes on; never like a whole one.
            assert!(!matches!(parse_record(&damaged, 42), Parsed::Whole(_)), "bit {bit}");
        }
    }

    #[test]
    fn a_segment_header_tells_versions_and_damage_apart() {
        let of = |is_mapped| SegmentInfo {
            first_seq: 5,
            previous: 2,
            salt: 6,
            allotted: 65_536,
            is_mapped,
        };
        for info in [of(true), of(false)] {
            let header = segment_header(info);
            assert_eq!(parse_segment_header(&header), SegmentHeader::Readable(info));
        }
        let header = segment_header(of(false));
        assert_eq!(parse_segment_header(&header[..39]), SegmentHeader::Incomplete);
        let mut newer = header;
        newer[8] = 3;
        newer[10] = 3;
        let crc = crc32c::crc32c(&newer[..SEGMENT_CRC_AT]);
        newer[SEGMENT_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(parse_segment_header(&newer), SegmentHeader::Newer { version: 3 });
        newer[0] = 0;
        assert_eq!(parse_segment_header(&newer), SegmentHeader::Bad);
    }

    proptest! {
        // Miri is some hundred times slower, and has no file to keep a failure in.
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_record(&bytes, 0);
            let _ = parse_segment_header(&bytes);
        }
    }
}
