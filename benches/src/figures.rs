//! Figures of several rounds, and the tables that they are printed in.

use std::fmt;

use serde::Serialize;

/// A figure over all rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    /// Of at least one round.
    fn of(rounds: &[f64]) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
        } else {
            at(middle)
        };
        Self { min: at(0), median, max: at(sorted.len().wrapping_sub(1)) }
    }
}

/// What a figure is hoped to be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Aim {
    AtMost(f64),
    AtLeast(f64),
}

impl Aim {
    fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= most,
            Self::AtLeast(least) => figure >= least,
        }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
        }
    }
}

/// The ratio to another row, taken round by round.
#[derive(Clone, Debug, Serialize)]
struct Ratio {
    to: String,
    ratio: Spread,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    what: String,
    unit: &'static str,
    figure: Spread,
    ratio: Option<Ratio>,
    /// Of the ratio where there is one, else of the figure.
    aim: Option<Aim>,
}

impl Row {
    fn verdict(&self) -> String {
        let judged = self.ratio.as_ref().map_or(self.figure, |ratio| ratio.ratio).median;
        match self.aim {
            Some(aim) if aim.is_met(judged) => format!("{aim} ✓"),
            Some(aim) => format!("{aim} ✗"),
            None => String::new(),
        }
    }
}

/// What one bench found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Section {
    name: &'static str,
    about: String,
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Section {
    pub(crate) fn new(name: &'static str, about: String) -> Self {
        Self { name, about, rows: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Adds a figure, of one or several rounds.
    pub(crate) fn row(&mut self, what: &str, unit: &'static str, rounds: &[f64]) -> &mut Self {
        self.aimed(what, unit, rounds, None)
    }

    /// Adds a figure with an aim.
    pub(crate) fn aimed(
        &mut self,
        what: &str,
        unit: &'static str,
        rounds: &[f64],
        aim: Option<Aim>,
    ) -> &mut Self {
        let figure = Spread::of(rounds);
        self.rows.push(Row { what: what.to_owned(), unit, figure, ratio: None, aim });
        self
    }

    /// Adds a figure and its ratio to another of the same rounds.
    pub(crate) fn compared(
        &mut self,
        what: &str,
        unit: &'static str,
        rounds: &[f64],
        (to, others): (&str, &[f64]),
        aim: Option<Aim>,
    ) -> &mut Self {
        let ratios: Vec<f64> = rounds.iter().zip(others).map(|(own, other)| own / other).collect();
        let ratio = Some(Ratio { to: to.to_owned(), ratio: Spread::of(&ratios) });
        let figure = Spread::of(rounds);
        self.rows.push(Row { what: what.to_owned(), unit, figure, ratio, aim });
        self
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}: {}\n", self.name, self.about)?;
        let mut lines = vec![
            ["", "min", "median", "max", "", "ratio (min–max)", "to", "aim"].map(String::from),
        ];
        lines.extend(self.rows.iter().map(|row| {
            let Spread { min, median, max } = row.figure;
            let (ratio, to) =
                row.ratio.as_ref().map_or_else(Default::default, |Ratio { to, ratio }| {
                    let [median, min, max] = [ratio.median, ratio.min, ratio.max].map(times);
                    (format!("{median} ({min}–{max})"), to.clone())
                });
            let (what, unit) = (row.what.clone(), row.unit.to_owned());
            [what, number(min), number(median), number(max), unit, ratio, to, row.verdict()]
        }));
        let width = |column: usize| {
            lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
        };
        let widths: [usize; 8] = std::array::from_fn(width);
        for line in &lines {
            let mut text = String::new();
            for (column, cell) in line.iter().enumerate() {
                let width = widths[column];
                let (left, right) = if (1..=3).contains(&column) {
                    (width - cell.chars().count(), 0)
                } else {
                    (0, width - cell.chars().count())
                };
                text.extend(["  ", &" ".repeat(left), cell, &" ".repeat(right)]);
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        for note in &self.notes {
            write!(f, "\n  {note}")?;
        }
        if self.notes.is_empty() { Ok(()) } else { writeln!(f) }
    }
}

/// A ratio with about three digits that tell something.
fn times(ratio: f64) -> String {
    match ratio.abs() {
        0.0..0.1 => format!("{ratio:.4}"),
        0.1..100.0 => format!("{ratio:.2}"),
        _ => number(ratio),
    }
}

/// A number with groups of three digits, and decimals only where it is small.
pub(crate) fn number(number: f64) -> String {
    if number.abs() < 100.0 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{:.0}", number.abs());
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if number <= -0.5 { format!("-{grouped}") } else { grouped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_rounds_lies_between_the_middle_two() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]);
        assert!((spread.median - 2.5).abs() < f64::EPSILON);
        assert!((spread.min - 1.0).abs() < f64::EPSILON && (spread.max - 4.0).abs() < f64::EPSILON);
        assert!((Spread::of(&[7.0]).median - 7.0).abs() < f64::EPSILON);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut section = Section::new("x", String::new());
        section.compared("a", "ns", &[2.0, 40.0], ("b", &[1.0, 20.0]), Some(Aim::AtMost(2.0)));
        let text = section.to_string();
        assert!(text.contains("2.00 (2.00–2.00)") && text.contains("≤ 2 ✓"), "{text}");
    }

    #[test]
    fn small_ratios_keep_their_digits() {
        assert_eq!([0.001, 0.5, 123.4].map(times), ["0.0010", "0.50", "123"]);
    }

    #[test]
    fn numbers_are_grouped() {
        let cases = [
            (0.0, "0"),
            (12.34, "12.3"),
            (100.5, "100"),
            (1_234_567.0, "1,234,567"),
            (-4_200.0, "-4,200"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
