//! What is kept of records that are not billed: dead letters, outcomes, and damaged bytes in
//! quarantine.

use std::collections::BTreeMap;
use std::io;

use super::super::records::dead_letter;
use super::super::registry::is_in_memory;
use super::{
    AlarmKind, Cause, Damage, Draining, Fault, Input, Now, RecordRef, Rejection, SCAN_MS, Sender,
    SpoolId, Token, is_planted,
};
use crate::spool::{MOST_LETTERS_BYTES, Place, Seq};

/// One part in so many of the room is kept for what has to be written in any case.
const SPARE: u64 = 64;

impl Sender {
    pub(super) fn set_damage_aside(&mut self, spool: SpoolId, damage: Damage, now: Now) {
        if damage.records > 0 {
            let message = format!(
                "{} bytes of a spool could not be read and are kept in quarantine: about {} calls",
                damage.bytes.len(),
                damage.records
            );
            self.alarm(AlarmKind::Quarantined, &message, now);
        }
        let at = damage.place();
        if let Err(error) = self.quarantine(spool, at, Some(damage.bytes), now) {
            self.alarm_storage("damaged bytes cannot be kept yet", &error, now);
            if let Some(draining) = self.drains.get_mut(&spool) {
                draining.damaged.push_back(at);
            }
        }
    }

    /// Puts damaged bytes of a spool into quarantine; they are read again where they are not given.
    fn quarantine(
        &mut self,
        spool: SpoolId,
        at: Place,
        bytes: Option<Vec<u8>>,
        now: Now,
    ) -> io::Result<()> {
        let has_room = self.room(now) > 0;
        let Some(draining) = self.drains.get_mut(&spool) else { return Ok(()) };
        if !is_planted(Fault::SkipTheQuarantine) {
            // They take theirs twice, until what lies around them is settled and unlinked: that waits for them.
            if !has_room {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let bytes = bytes.map_or_else(|| draining.drain.damaged_bytes(at), Ok)?;
            self.namespace.quarantine(draining.drain.name(), at, &bytes)?;
        }
        self.used_bytes += at.len;
        draining.uncommitted = true;
        Ok(())
    }

    fn keep_damaged(&mut self, spool: SpoolId, now: Now) {
        let first = |sender: &Self| sender.drains.get(&spool)?.damaged.front().copied();
        while let Some(at) = first(self) {
            if let Err(error) = self.quarantine(spool, at, None, now) {
                return self.alarm_storage("damaged bytes cannot be kept yet", &error, now);
            }
            if let Some(draining) = self.drains.get_mut(&spool) {
                draining.damaged.pop_front();
            }
        }
    }

    /// Tries again to keep what could not be kept.
    pub(super) fn keep_what_is_owed(&mut self, now: Now) {
        let owing = |(spool, draining): (&SpoolId, &Draining)| draining.owes().then_some(*spool);
        let owing: Vec<SpoolId> = self.drains.iter().filter_map(owing).collect();
        for spool in owing {
            self.keep_damaged(spool, now);
            self.keep_outcomes(spool, now);
        }
    }

    /// What dead letters and quarantine may still take, and leave something for cursors and outcomes.
    fn room(&mut self, now: Now) -> u64 {
        // All files are looked at for it, of processes that may be very many.
        if now.mono >= self.next_measure
            && let Ok(bytes) = self.namespace.usage()
        {
            (self.used_bytes, self.next_measure) = (bytes, now.mono + SCAN_MS);
        }
        let max = self.shared.writer.max_bytes();
        (max - max / SPARE).saturating_sub(self.used_bytes)
    }

    /// Dead letters first, then the outcomes, then the records count as settled. What is set aside
    /// together is written together, for each write takes a sync.
    pub(super) fn set_aside(&mut self, now: Now) -> Vec<Input> {
        let mut done = Vec::new();
        let mut letters = Letters::default();
        for Aside { token, record: at, cause } in std::mem::take(&mut self.asides) {
            let drain = self.drains.get(&at.spool).map(|draining| &draining.drain);
            let Some((drain, record)) =
                drain.and_then(|drain| Some((drain, drain.record(at.seq)?)))
            else {
                done.push(Input::Stored { token, ok: true });
                continue;
            };
            if is_planted(Fault::SettleWithoutADeadLetter) {
                self.settle(at.spool, at.seq);
                done.push(Input::Stored { token, ok: true });
                continue;
            }
            match dead_letter(drain, record, &cause, now) {
                Ok(letter) => {
                    if letters.lines.len() + letter.len() > MOST_LETTERS_BYTES {
                        done.extend(self.write_letters(std::mem::take(&mut letters), now));
                    }
                    letters.add(&letter, token, at, cause);
                }
                Err(error) => {
                    self.alarm_storage("a dead letter cannot be written", &error, now);
                    done.push(Input::Stored { token, ok: false });
                }
            }
        }
        done.extend(self.write_letters(letters, now));
        done
    }

    fn write_letters(&mut self, mut letters: Letters, now: Now) -> Vec<Input> {
        if letters.of.is_empty() || !self.may_act() {
            return Vec::new();
        }
        let no_room = letters.cut_to(if self.is_in_memory() { u64::MAX } else { self.room(now) });
        if !no_room.is_empty() {
            let message = "max_spool_bytes is taken: clear the dead letters or raise it";
            let error = io::Error::new(io::ErrorKind::StorageFull, message);
            self.alarm_storage("a dead letter cannot be written", &error, now);
        }
        let mut ok = !letters.of.is_empty();
        if ok && let Err(error) = self.append_letters(&letters.lines) {
            self.alarm_storage("a dead letter cannot be written", &error, now);
            ok = false;
        }
        let stored = |token, ok| Input::Stored { token, ok };
        let mut done: Vec<Input> = no_room.into_iter().map(|token| stored(token, false)).collect();
        done.extend(letters.of.iter().map(|(token, ..)| stored(*token, ok)));
        if ok {
            let mut outcomes: BTreeMap<SpoolId, Vec<Rejection>> = BTreeMap::new();
            for (_, spool, rejection) in letters.of {
                outcomes.entry(spool).or_default().push(rejection);
            }
            for (spool, rejections) in outcomes {
                let seqs: Vec<Seq> = rejections.iter().map(|rejection| rejection.seq).collect();
                self.note_outcomes(spool, rejections, now);
                for seq in seqs {
                    self.settle(spool, seq);
                }
            }
        }
        done
    }

    fn append_letters(&mut self, lines: &[u8]) -> io::Result<()> {
        if !self.is_in_memory() {
            self.namespace.append_dead_letters(lines)?;
            self.used_bytes += lines.len() as u64;
        }
        Ok(())
    }

    /// Nobody reads what is kept in memory of calls that were set aside, and it would take the room of those
    /// that wait. Alarms and receipts have the words.
    pub(super) fn is_in_memory(&self) -> bool {
        is_in_memory(self.namespace.dir())
    }

    /// Writes down why records are not billed, and tells those who wait in this process.
    pub(super) fn note_outcomes(&mut self, spool: SpoolId, rejections: Vec<Rejection>, now: Now) {
        let Some(Draining { drain, unwritten, .. }) = self.drains.get_mut(&spool) else { return };
        if *drain.name() == self.shared.writer.name() {
            for rejection in &rejections {
                self.shared.settlement.reject(rejection.clone());
            }
        }
        unwritten.extend(rejections);
        self.keep_outcomes(spool, now);
    }

    /// Writes a spool's outcomes, and those that could not be written before.
    fn keep_outcomes(&mut self, spool: SpoolId, now: Now) {
        let in_memory = self.is_in_memory();
        let Some(draining) = self.drains.get_mut(&spool) else { return };
        if draining.unwritten.is_empty() {
            return;
        }
        let written =
            if in_memory { Ok(()) } else { draining.drain.record_outcomes(&draining.unwritten) };
        match written {
            Ok(()) => {
                draining.unwritten.clear();
                draining.uncommitted = true;
            }
            Err(error) => self.alarm_storage("outcomes cannot be written yet", &error, now),
        }
    }
}

/// A record to be set aside.
pub(super) struct Aside {
    pub(super) token: Token,
    pub(super) record: RecordRef,
    pub(super) cause: Cause,
}

/// Dead letters that are written together, and the outcomes that follow from them.
#[derive(Default)]
struct Letters {
    lines: Vec<u8>,
    of: Vec<(Token, SpoolId, Rejection)>,
    /// Where each line ends.
    ends: Vec<usize>,
}

impl Letters {
    fn add(&mut self, letter: &[u8], token: Token, at: RecordRef, cause: Cause) {
        if !self.lines.is_empty() {
            self.lines.push(b'\n');
        }
        self.lines.extend_from_slice(letter);
        self.ends.push(self.lines.len());
        let rejection = Rejection {
            seq: at.seq,
            records: 1,
            kind: cause.kind.as_str().to_owned(),
            status: cause.status,
            message: cause.message,
            uncertain: cause.uncertain,
        };
        self.of.push((token, at.spool, rejection));
    }

    /// Leaves out those for which there is no room.
    fn cut_to(&mut self, room: u64) -> Vec<Token> {
        let fit = self.ends.iter().take_while(|end| **end as u64 <= room).count();
        self.lines.truncate(fit.checked_sub(1).map_or(0, |last| self.ends[last]));
        self.of.split_off(fit).into_iter().map(|(token, ..)| token).collect()
    }
}
