//! What callers are told of their calls, held against what became of them.

use std::time::Instant;

use super::world::{HOUR_MS, World};
use crate::settlement::block_on;

impl World {
    /// What a process knows to be settled is as it tells its callers.
    pub(super) fn hear_verdicts(&mut self, number: u32) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        let settlement = &process.shared.settlement;
        let settled = settlement.settled();
        while let Some((seq, call)) = process.receipts.front().copied().filter(|it| it.0 < settled)
        {
            process.receipts.pop_front();
            let verdict = block_on(settlement.wait().until_settled(seq, Instant::now()));
            let verdict = verdict.expect("it is settled").map_err(|error| error.kind());
            self.oracle.told(&self.machine, call, verdict);
        }
    }

    /// Living processes learn that all of theirs is settled.
    pub(super) fn look_at_receipts(&mut self) {
        // A call that is kept for good holds up the receipts behind it.
        if self.server.options.fails_on_some() || !self.scenario.bounds.letters_fit {
            return;
        }
        let end = self.now + HOUR_MS;
        while self.now < end && self.is_fine() && self.waiting().is_some() {
            self.step();
        }
        if let Some((number, settled, appended)) = self.waiting() {
            let text = format!("process {number} knows of {settled} of its {appended}");
            self.oracle.violations.push(text);
        }
    }

    /// A process that does not know of all that is settled.
    fn waiting(&self) -> Option<(u32, u64, u64)> {
        self.processes.iter().find_map(|(number, process)| {
            let settled = process.shared.settlement.settled();
            let appended = process.shared.writer.next_seq();
            (settled < appended).then_some((*number, settled, appended))
        })
    }
}
