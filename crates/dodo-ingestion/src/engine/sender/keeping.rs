//! What is kept of records that are not billed: dead letters, and damaged bytes in quarantine.

use super::super::records::write_dead_letter;
use super::{
    AlarmKind, Cause, Damage, Fault, Now, RecordRef, Rejection, Sender, SpoolId, is_planted,
};

/// One part in so many of the room is kept for what has to be written in any case.
const SPARE: u64 = 64;

impl Sender {
    pub(super) fn damaged(&mut self, spool: SpoolId, damage: Damage, now: Now) {
        if damage.records > 0 {
            let message = format!(
                "{} bytes of a spool could not be read and are kept in quarantine: about {} calls",
                damage.bytes.len(),
                damage.records
            );
            self.alarm(AlarmKind::Quarantined, &message, now);
        }
        self.damaged.push((spool, damage));
        self.keep_damaged(now);
    }

    /// Puts damaged bytes into quarantine.
    pub(super) fn keep_damaged(&mut self, now: Now) {
        for (spool, damage) in std::mem::take(&mut self.damaged) {
            let Some(drain) = self.drains.get(&spool) else { continue };
            let bytes = damage.bytes.len() as u64;
            let kept = if is_planted(Fault::SkipTheQuarantine) {
                Ok(())
            } else if bytes > self.room() {
                Err(std::io::ErrorKind::StorageFull.into())
            } else {
                self.namespace.quarantine(drain.name(), &damage)
            };
            match kept {
                Ok(()) => {
                    self.used_bytes += bytes;
                    self.uncommitted.insert(spool);
                }
                Err(error) => {
                    self.alarm_storage("damaged bytes cannot be kept yet", &error, now);
                    self.damaged.push((spool, damage));
                }
            }
        }
    }

    /// What dead letters and quarantine may still take, and leave something for cursors and outcomes.
    fn room(&self) -> u64 {
        let max = self.shared.writer.max_bytes();
        (max - max / SPARE).saturating_sub(self.used_bytes)
    }

    /// Dead letter first, then the outcome, then the record counts as settled.
    pub(super) fn set_aside(&mut self, at: RecordRef, cause: &Cause, now: Now) -> bool {
        let Some(drain) = self.drains.get(&at.spool) else { return true };
        let Some(record) = drain.record(at.seq) else { return true };
        let rejection = Rejection {
            seq: at.seq,
            records: 1,
            kind: cause.kind.as_str().to_owned(),
            status: cause.status,
            message: cause.message.clone(),
            uncertain: cause.uncertain,
        };
        if is_planted(Fault::SettleWithoutADeadLetter) {
            self.settle(at.spool, at.seq);
            return true;
        }
        let room = self.room();
        let written = write_dead_letter(&self.namespace, drain, record, cause, room, now);
        match written {
            Ok(bytes) => self.used_bytes += bytes,
            Err(error) => {
                self.alarm_storage("a dead letter cannot be written", &error, now);
                return false;
            }
        }
        // It is set aside now, and not sent again, even if those who wait are not told.
        if let Err(error) = drain.record_outcomes(std::slice::from_ref(&rejection)) {
            self.alarm_storage("an outcome cannot be written", &error, now);
        }
        if *drain.name() == self.shared.writer.name() {
            self.shared.settlement.reject(rejection);
        }
        self.settle(at.spool, at.seq);
        true
    }
}
