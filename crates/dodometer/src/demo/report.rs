//! The bill and the account of a demo: in words, as JSON, and whether they are right.

use std::fmt;
use std::ops::RangeInclusive;

use anyhow::ensure;
use serde::Serialize;

use super::billing::{Bill, CENTS_A_CALL, CustomerBill, Totals};
use super::screen::Screen;
use super::traffic::Counts;

/// How many calls were accepted.
#[derive(Clone, Copy, Serialize)]
#[serde(untagged)]
pub(crate) enum Accepted {
    /// The client says it, or everybody was answered.
    Exactly { accepted: u64 },
    /// A killed worker says nothing. What it answered it had accepted; of what was sent to it and never
    /// answered, it may have accepted some.
    Between { accepted_at_least: u64, accepted_at_most: u64 },
}

impl Accepted {
    /// From how many calls were answered, and how many sent.
    pub(crate) fn between(answered: u64, sent: u64) -> Self {
        if answered == sent {
            Self::Exactly { accepted: answered }
        } else {
            Self::Between { accepted_at_least: answered, accepted_at_most: sent }
        }
    }

    fn range(self) -> RangeInclusive<u64> {
        match self {
            Self::Exactly { accepted } => accepted..=accepted,
            Self::Between { accepted_at_least, accepted_at_most } => {
                accepted_at_least..=accepted_at_most
            }
        }
    }
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exactly { accepted } => write!(f, "{}", grouped(accepted)),
            Self::Between { accepted_at_least, accepted_at_most } => {
                let [answered, sent] = [accepted_at_least, accepted_at_most].map(grouped);
                write!(f, "between {answered} (answered) and {sent} (sent)")
            }
        }
    }
}

/// The processes that served.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Staffing {
    pub(crate) workers: usize,
    pub(crate) kills: u32,
}

/// What became of the calls, as far as those who served know.
#[derive(Serialize)]
pub(crate) struct Account {
    /// `None` where the demo's own process served.
    #[serde(flatten)]
    pub(crate) staffing: Option<Staffing>,
    #[serde(flatten)]
    pub(crate) accepted: Accepted,
    pub(crate) dead_lettered: u64,
    /// `None` where several processes served: they end only when they have nothing left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spooled: Option<u64>,
    /// Requests made to the meter.
    pub(crate) requests: u64,
}

/// What came of it.
#[derive(Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    account: Account,
    /// Calls on the meter's bill.
    billed: u64,
    /// Calls that the API failed on: stored, and not billed.
    errors: u64,
    customers: Vec<CustomerBill>,
    #[serde(skip)]
    totals: Totals,
}

impl Report {
    /// From what those say who served and, as for what is billed, from what the meter says.
    pub(crate) fn new(account: Account, bill: Bill) -> Self {
        let Bill { customers, totals } = bill;
        Self { account, billed: totals.calls, errors: totals.errors, customers, totals }
    }

    /// Shows the bill and the account.
    pub(crate) fn show(&self, screen: &Screen) -> anyhow::Result<()> {
        let Account { staffing, accepted, dead_lettered, spooled, requests } = self.account;
        screen.say("")?;
        screen.heading(&line(["customer", "calls billed", "errors", "p50", "p95", "amount"]))?;
        for customer in &self.customers {
            let CustomerBill { customer_id, calls, errors, p50_ms, p95_ms, amount } = customer;
            let counts = [*calls, *errors];
            screen.say(&bill_line(customer_id, counts, [*p50_ms, *p95_ms], *amount))?;
        }
        let Totals { calls, errors, p50_ms, p95_ms, amount } = self.totals;
        screen.say(&bill_line("total", [calls, errors], [p50_ms, p95_ms], amount))?;
        screen.say("")?;
        if let Some(Staffing { workers, kills }) = staffing {
            screen.say(&format!("workers {workers}, killed {kills}"))?;
        }
        let [billed, errors, dead_lettered] =
            [self.billed, self.errors, dead_lettered].map(grouped);
        let is = if matches!(accepted, Accepted::Exactly { .. }) { " =" } else { ":" };
        let spooled = spooled.map(|spooled| format!(" + still spooled {}", grouped(spooled)));
        screen.say(&format!(
            "accepted {accepted}{is} billed {billed} + errors {errors} + dead-lettered {dead_lettered}{}",
            spooled.unwrap_or_default()
        ))?;
        let calls_a_request = (self.billed + self.errors) as f64 / requests.max(1) as f64;
        screen.say(&format!("requests {}, {calls_a_request:.0} calls a request", grouped(requests)))
    }

    /// One JSON object on one line.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// Fails unless every call that was made is on the bill, once, or an error; and the bill is of the calls billed.
    pub(crate) fn check(&self, made: &Counts) -> anyhow::Result<()> {
        let Account { accepted, dead_lettered, spooled, .. } = self.account;
        let (billed, errors, spooled) = (self.billed, self.errors, spooled.unwrap_or(0));
        let range = accepted.range();
        ensure!(
            range.contains(&(billed + errors + dead_lettered + spooled)),
            "the account does not balance: {accepted} calls were accepted, but {billed} are billed, \
             {errors} errors, {dead_lettered} dead-lettered and {spooled} still spooled"
        );
        ensure!(
            dead_lettered == 0 && spooled == 0,
            "of {accepted} accepted calls {billed} are billed; {dead_lettered} are dead-lettered \
             and {spooled} still spooled"
        );
        let price = i64::from(CENTS_A_CALL);
        let sums = |of: fn(&CustomerBill) -> u64| self.customers.iter().map(of).sum::<u64>();
        ensure!(
            self.customers.iter().all(|customer| customer.amount == customer.calls as i64 * price)
                && self.totals.amount == billed as i64 * price
                && sums(|customer| customer.calls) == billed
                && sums(|customer| customer.errors) == errors,
            "the amounts are not those of {billed} calls at {price} cents"
        );
        let made = made.answered()..=made.sent();
        ensure!(
            made.contains(range.start()) && made.contains(range.end()),
            "the API answered {} calls, but {accepted} were accepted",
            made.start()
        );
        Ok(())
    }
}

fn bill_line(who: &str, counts: [u64; 2], times: [Option<f64>; 2], amount: i64) -> String {
    let ([calls, errors], [p50, p95]) = (counts.map(grouped), times.map(milliseconds));
    line([who, &calls, &errors, &p50, &p95, &dollars(amount)])
}

fn line([who, calls, errors, p50, p95, amount]: [&str; 6]) -> String {
    format!("{who:<12}  {calls:>12}  {errors:>8}  {p50:>9}  {p95:>9}  {amount:>10}")
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
        let (errors, amount) = (0, 2 * billed as i64);
        let customer = CustomerBill {
            customer_id: "cus_1".to_owned(),
            calls: billed,
            errors,
            p50_ms: None,
            p95_ms: None,
            amount,
        };
        let totals = Totals { calls: billed, errors, p50_ms: None, p95_ms: None, amount };
        let account = Account {
            staffing: None,
            accepted: Accepted::Exactly { accepted },
            dead_lettered,
            spooled: Some(spooled),
            requests: 1,
        };
        Report::new(account, Bill { customers: vec![customer], totals })
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
    fn errors_are_accounted_for_and_cost_nothing() {
        let with_errors = |billed, errors| {
            let mut report = report(10, billed, 0, 0);
            report.errors = errors;
            report.customers[0].errors = errors;
            report
        };
        let made = Counts::of(10, 0);
        assert!(with_errors(9, 1).check(&made).is_ok());
        for (mut wrong, because) in [
            (with_errors(10, 1), "does not balance"),
            (with_errors(9, 0), "does not balance"),
            (with_errors(9, 1), "the amounts are not those of 9 calls"),
        ] {
            if because.contains("amounts") {
                wrong.customers[0].amount += 2;
            }
            let error = wrong.check(&made).unwrap_err().to_string();
            assert!(error.contains(because), "{error}");
        }
    }

    #[test]
    fn what_a_killed_worker_did_not_answer_may_be_billed_or_not() {
        let with = |answered, sent, billed| {
            let mut report = report(0, billed, 0, 0);
            report.account.accepted = Accepted::between(answered, sent);
            report.account.spooled = None;
            report
        };
        assert_eq!(with(9, 9, 9).account.accepted.to_string(), "9");
        let doubtful = with(1000, 1002, 1001);
        let accepted = doubtful.account.accepted.to_string();
        assert_eq!(accepted, "between 1,000 (answered) and 1,002 (sent)");
        let json = doubtful.json().unwrap();
        assert!(json.contains(r#""accepted_at_least":1000,"accepted_at_most":1002"#), "{json}");
        let made = Counts::of(1000, 2);
        assert!(
            [1000, 1001, 1002].iter().all(|&billed| with(1000, 1002, billed).check(&made).is_ok())
        );
        assert!(with(1000, 1002, 999).check(&made).is_err());
        assert!(with(1000, 1002, 1003).check(&made).is_err());
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
