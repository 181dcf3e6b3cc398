//! Exact decimals for units and money, so that ten calls at 0.1 are one unit.
//!
//! Sums saturate at the largest decimal (about 7.9e28) instead of failing a bill.

use rust_decimal::prelude::ToPrimitive;
use rust_decimal::{Decimal, RoundingStrategy};

/// Reads a plain decimal such as `0.02` or `-3`; no exponent, no separators.
pub(crate) fn parse(text: &str) -> Option<Decimal> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.len() <= 40
        && digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.ends_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if plain { Decimal::from_str_exact(text).ok() } else { None }
}

/// The shortest decimal that reads back as `value`; out of range saturates.
pub(crate) fn from_double(value: f64) -> Decimal {
    value.to_string().parse().unwrap_or(if value < 0.0 { Decimal::MIN } else { Decimal::MAX })
}

/// The decimal as the API writes it: no exponent, no trailing zeros.
pub(crate) fn show(value: Decimal) -> String {
    value.normalize().to_string()
}

/// Rounds an amount to whole smallest currency units, halves away from zero.
pub(crate) fn to_smallest_units(amount: Decimal) -> i64 {
    amount
        .round_dp_with_strategy(0, RoundingStrategy::MidpointAwayFromZero)
        .to_i64()
        .unwrap_or(if amount.is_sign_negative() { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_decimals_are_read() {
        for (text, read) in [
            ("0.02", Some("0.02")),
            ("1.500", Some("1.5")),
            ("-3", Some("-3")),
            ("007", Some("7")),
            ("", None),
            ("-", None),
            (".5", None),
            ("5.", None),
            ("1e3", None),
            ("1_000", None),
            ("1.2.3", None),
            ("+1", None),
            ("99999999999999999999999999999999", None),
        ] {
            assert_eq!(parse(text).map(show).as_deref(), read, "{text}");
        }
    }

    #[test]
    fn doubles_become_the_decimal_that_was_meant() {
        let sum = (0..10).fold(Decimal::ZERO, |sum, _| sum + from_double(0.1));
        assert_eq!(show(sum), "1");
        assert_eq!(from_double(1e300), Decimal::MAX);
        assert_eq!(from_double(-1e300), Decimal::MIN);
        assert_eq!(show(from_double(1e-300)), "0");
    }

    #[test]
    fn amounts_round_halves_away_from_zero_and_saturate() {
        for (amount, units) in [("0.49", 0), ("0.5", 1), ("2.5", 3), ("-0.5", -1)] {
            assert_eq!(to_smallest_units(parse(amount).unwrap()), units, "{amount}");
        }
        assert_eq!(to_smallest_units(Decimal::MAX), i64::MAX);
    }
}
