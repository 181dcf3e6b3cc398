//! The bill and the account of a demo: in words, as JSON, and whether they are right.

use anyhow::ensure;
use dodo_ingestion::Stats;
use serde::Serialize;

use super::billing::{Bill, CustomerBill, Totals};
use super::screen::Screen;
use super::traffic::Counts;

/// What came of it.
#[derive(Serialize)]
pub(crate) struct Report {
    /// Calls that the client accepted.
    accepted: u64,
    /// Calls on the meter's bill.
    billed: u64,
    dead_lettered: u64,
    spooled: u64,
    /// Requests that the client made to the meter.
    requests: u64,
    customers: Vec<CustomerBill>,
    #[serde(skip)]
    totals: Totals,
}

impl Report {
    /// From what the client says and, as for what is billed, from what the meter says.
    pub(crate) fn new(stats: &Stats, bill: Bill) -> Self {
        Self {
            accepted: stats.accepted,
            billed: bill.totals.calls,
            dead_lettered: stats.dead_lettered,
            spooled: stats.spooled,
            requests: stats.requests,
            customers: bill.customers,
            totals: bill.totals,
        }
    }

    /// Shows the bill and the account.
    pub(crate) fn show(&self, screen: &Screen) -> anyhow::Result<()> {
        let Self { accepted, billed, dead_lettered, spooled, requests, .. } = *self;
        let [accepted, billed, dead_lettered, spooled, used] =
            [accepted, billed, dead_lettered, spooled, requests].map(grouped);
        screen.say("")?;
        screen.heading(&line("customer", "calls billed", "p50", "p95", "amount"))?;
        for customer in &self.customers {
            let CustomerBill { customer_id, calls, p50_ms, p95_ms, amount } = customer;
            screen.say(&bill_line(customer_id, *calls, *p50_ms, *p95_ms, *amount))?;
        }
        let Totals { calls, p50_ms, p95_ms, amount } = self.totals;
        screen.say(&bill_line("total", calls, p50_ms, p95_ms, amount))?;
        screen.say("")?;
        screen.say(&format!(
            "accepted {accepted} = billed {billed} + dead-lettered {dead_lettered} + still spooled {spooled}"
        ))?;
        let calls_a_request = self.billed as f64 / self.requests.max(1) as f64;
        screen.say(&format!("requests {used}, {calls_a_request:.0} calls a request"))
    }

    /// One JSON object on one line.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// Fails unless every call that was made is on the bill, once.
    pub(crate) fn check(&self, made: &Counts) -> anyhow::Result<()> {
        let Self { accepted, billed, dead_lettered, spooled, .. } = *self;
        ensure!(
            accepted == billed + dead_lettered + spooled,
            "the account does not balance: {accepted} calls were accepted, but {billed} are billed, \
             {dead_lettered} dead-lettered and {spooled} still spooled"
        );
        ensure!(
            billed == accepted,
            "of {accepted} accepted calls {billed} are billed; {dead_lettered} are dead-lettered \
             and {spooled} still spooled"
        );
        let answered = made.answered();
        let made = answered..=answered + made.failed();
        ensure!(
            made.contains(&accepted),
            "the API answered {answered} calls, but {accepted} were accepted"
        );
        Ok(())
    }
}

fn bill_line(who: &str, calls: u64, p50: Option<f64>, p95: Option<f64>, amount: i64) -> String {
    line(who, &grouped(calls), &milliseconds(p50), &milliseconds(p95), &dollars(amount))
}

fn line(who: &str, calls: &str, p50: &str, p95: &str, amount: &str) -> String {
    format!("{who:<12}  {calls:>12}  {p50:>9}  {p95:>9}  {amount:>10}")
}

fn milliseconds(time: Option<f64>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{time:.1} ms"))
}

fn dollars(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}${}.{:02}", grouped(cents / 100), cents % 100)
}

/// With a comma between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(accepted: u64, billed: u64, dead_lettered: u64, spooled: u64) -> Report {
        let totals = Totals { calls: billed, p50_ms: None, p95_ms: None, amount: 0 };
        let customers = Vec::new();
        Report { accepted, billed, dead_lettered, spooled, requests: 1, customers, totals }
    }

    #[test]
    fn only_a_bill_of_every_call_passes() {
        let made = Counts::default();
        assert!(report(0, 0, 0, 0).check(&made).is_ok());
        for (wrong, because) in [
            (report(9, 8, 0, 0), "does not balance"),
            (report(9, 10, 0, 0), "does not balance"),
            (report(9, 8, 1, 0), "of 9 accepted calls 8 are billed"),
            (report(9, 8, 0, 1), "of 9 accepted calls 8 are billed"),
            (report(9, 9, 0, 0), "the API answered 0 calls, but 9 were accepted"),
        ] {
            let error = wrong.check(&made).unwrap_err().to_string();
            assert!(error.contains(because), "{error}");
        }
    }

    #[test]
    fn money_and_numbers_are_shown_as_people_write_them() {
        assert_eq!(
            [0, 5, 1_234_567, -250].map(dollars),
            ["$0.00", "$0.05", "$12,345.67", "-$2.50"]
        );
        assert_eq!([0, 999, 1000, 1_000_000].map(grouped), ["0", "999", "1,000", "1,000,000"]);
    }
}
