//! Durations as people write them.

use std::time::Duration;

/// Reads a number and a unit, such as `3s` or `1.5 h`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("give a number and a unit: ms, s, m or h, such as 3s".to_owned()),
    };
    let number: f64 = number.trim().parse().map_err(|_| format!("{number:?} is not a number"))?;
    Duration::try_from_secs_f64(number * seconds)
        .map_err(|_| "must not be negative, nor longer than any clock runs".to_owned())
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
    }
}
