//! What came of a plan, and whether it is right.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use crate::meter::Totals;
use crate::notes::Notes;

/// How many ids of a difference are named.
const NAMED: usize = 5;

/// Who was killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kills {
    /// Writers, whoever sent.
    pub writers: u32,
    /// Writers that sent for all.
    pub senders: u32,
    /// The meter.
    pub meters: u32,
    /// Of the writers and senders, those that died in a call: attempted, and not seen accepted.
    pub in_a_call: u32,
}

impl Kills {
    /// All of them.
    pub fn total(self) -> u32 {
        self.writers + self.senders + self.meters
    }
}

/// What came of a plan.
#[derive(Clone, Debug)]
pub struct Report {
    /// The plan's name.
    pub plan: &'static str,
    /// The seed that chose who was killed and when.
    pub seed: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Who was killed.
    pub kills: Kills,
    /// How often a process was stopped and went on.
    pub stops: u32,
    /// Calls that writers attempted, if only perhaps.
    pub attempted: usize,
    /// Calls that writers saw accepted.
    pub accepted: usize,
    /// Calls that the meter bills.
    pub billed: usize,
    /// Requests that the meter answered.
    pub requests: u64,
    /// Events that the meter was sent again and did not bill again.
    pub resent: u64,
    /// How long it took from the death of a sender to a request of another, each time; the longest last.
    pub hand_overs: Vec<Duration>,
    /// What should not be; empty when all is right.
    pub differences: Vec<String>,
}

impl Report {
    /// Holds the bill against the writers' notes.
    pub(crate) fn compare(&mut self, notes: &Notes, billed: Vec<String>, totals: Totals) {
        let times = billed.len();
        let billed: HashSet<String> = billed.into_iter().collect();
        if billed.len() != times {
            self.differences.push(format!("{} ids are billed twice", times - billed.len()));
        }
        if totals.calls != billed.len() as u64 {
            let says = totals.calls;
            self.differences.push(format!("the bill says {says} calls, not {}", billed.len()));
        }
        if totals.refused != 0 {
            self.differences.push(format!("{} requests were refused", totals.refused));
        }
        self.name("accepted and not billed", notes.accepted.difference(&billed));
        self.name("billed and not attempted", billed.difference(&notes.attempted));
    }

    fn name<'a>(&mut self, what: &str, ids: impl Iterator<Item = &'a String>) {
        let mut ids: Vec<&str> = ids.map(String::as_str).collect();
        ids.sort_unstable();
        if !ids.is_empty() {
            let shown = ids[..ids.len().min(NAMED)].join(", ");
            self.differences.push(format!("{} calls {what}: {shown}", ids.len()));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kills { writers, senders, meters, in_a_call } = self.kills;
        let Self { plan, seed, stops, attempted, accepted, billed, requests, resent, .. } = self;
        write!(
            f,
            "{plan}: kills {} (writers {writers}, senders {senders}, meter {meters}; in a call \
             {in_a_call}), stops {stops}; \
             attempted {attempted}, accepted {accepted}, billed {billed}, requests {requests}, \
             sent again {resent}; seed {seed}, {:.1} s",
            self.kills.total(),
            self.elapsed.as_secs_f64()
        )?;
        if let (Some(median), Some(most)) =
            (self.hand_overs.get(self.hand_overs.len() / 2), self.hand_overs.last())
        {
            let (count, median, most) =
                (self.hand_overs.len(), median.as_millis(), most.as_millis());
            write!(f, "; {count} hand-overs, median {median} ms, longest {most} ms")?;
        }
        for difference in &self.differences {
            write!(f, "\n  wrong: {difference}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(attempted: &[&str], accepted: &[&str], billed: &[&str]) -> Vec<String> {
        let set = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect();
        let notes = Notes { attempted: set(attempted), accepted: set(accepted) };
        let billed: Vec<String> = billed.iter().map(|&id| id.to_owned()).collect();
        let calls = billed.len() as u64;
        let totals = Totals { calls, requests: 1, refused: 0, duplicates: 0 };
        let mut report = Report {
            plan: "test",
            seed: 0,
            elapsed: Duration::ZERO,
            kills: Kills::default(),
            stops: 0,
            attempted: attempted.len(),
            accepted: accepted.len(),
            billed: billed.len(),
            requests: 1,
            resent: 0,
            hand_overs: Vec::new(),
            differences: Vec::new(),
        };
        report.compare(&notes, billed, totals);
        report.differences
    }

    #[test]
    fn a_kill_may_leave_a_call_in_doubt_and_no_other() {
        assert!(differences(&["a", "b"], &["a"], &["a"]).is_empty());
        assert!(differences(&["a", "b"], &["a"], &["a", "b"]).is_empty());
        assert_eq!(
            differences(&["a", "b"], &["a"], &["b", "c"]),
            ["1 calls accepted and not billed: a", "1 calls billed and not attempted: c"]
        );
        assert_eq!(
            differences(&["a"], &["a"], &["a", "a"]),
            ["1 ids are billed twice", "the bill says 2 calls, not 1"]
        );
    }
}
