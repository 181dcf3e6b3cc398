//! Durations as people write them.

use std::time::Duration;

use jiff::SignedDuration;

/// Reads a number and a unit, such as `3s` or `1.5 h`.
pub fn parse(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" if number.trim().parse::<f64>().is_ok_and(|number| number >= 0.0) => {
            let number = number.trim();
            return Err(format!(
                "the unit is missing: give a number and a unit (ms, s, m or h), such as {number}s"
            ));
        }
        _ => return Err("give a number and a unit: ms, s, m or h, such as 3s".to_owned()),
    };
    let number: f64 = number.trim().parse().map_err(|_| format!("{number:?} is not a number"))?;
    Duration::try_from_secs_f64(number * seconds)
        .map_err(|_| "must not be negative, nor longer than any clock runs".to_owned())
}

/// Reads a duration that may be negative, such as `-90s`.
pub(crate) fn parse_signed(text: &str) -> Result<SignedDuration, String> {
    let (length, negative) = match text.strip_prefix('-') {
        Some(length) => (length, true),
        None => (text.strip_prefix('+').unwrap_or(text), false),
    };
    let length = SignedDuration::try_from(parse(length)?)
        .map_err(|_| "must not be longer than any clock runs".to_owned())?;
    Ok(if negative { -length } else { length })
}

/// A duration in the largest unit of which it is a whole number.
pub(crate) fn show(duration: SignedDuration) -> String {
    let ms = duration.as_millis();
    match [(3_600_000, "h"), (60_000, "m"), (1000, "s")].iter().find(|(of, _)| ms % of == 0) {
        Some((_, _)) if ms == 0 => "0s".to_owned(),
        Some((of, unit)) => format!("{}{unit}", ms / of),
        None => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_as_long_as_its_words_say() {
        for (text, milliseconds) in [
            ("3s", 3000),
            ("500ms", 500),
            ("1.5s", 1500),
            ("2 m", 120_000),
            ("0s", 0),
            ("24h", 86_400_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "3", "s", "-1s", "1d", "NaNs", "1e99h", "3s3s"] {
            assert!(parse(text).is_err(), "{text}");
        }
        for (text, told) in [("1", "the unit is missing"), ("1d", "give a number and a unit")] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn a_signed_duration_is_shown_as_it_would_be_written() {
        for text in ["25h", "-90s", "0s", "1500ms", "90m", "-1ms"] {
            assert_eq!(show(parse_signed(text).unwrap()), text);
        }
        assert_eq!(parse_signed("+1.5h"), Ok(SignedDuration::from_mins(90)));
        for text in ["--1s", "1", "-"] {
            assert!(parse_signed(text).is_err(), "{text}");
        }
    }
}
