//! What was given for an option: by the program, by the environment, or by default.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{OptionKind, OptionSpec, OptionValue, TimeUnit, options::did_you_mean};
use crate::error::{Error, Result};

/// Looks values up: argument, then environment, then default; and checks them against the table.
pub(super) struct Given<'a, E> {
    pub(super) arguments: &'a BTreeMap<&'static str, OptionValue>,
    pub(super) env: &'a E,
    pub(super) unit: TimeUnit,
}

impl<E: Fn(&str) -> Option<String>> Given<'_, E> {
    /// An error about an option, with where its value came from.
    pub(super) fn with_origin(&self, error: Error) -> Error {
        match error.field().and_then(|name| OptionSpec::find(name).ok()) {
            Some(spec) if self.argument(spec).is_none() && self.variable(spec).is_some() => {
                error.named(spec.name, &format!("{} (from {})", spec.name, spec.env))
            }
            _ => error,
        }
    }

    fn value(&self, name: &str) -> Result<(&'static OptionSpec, Option<OptionValue>)> {
        let spec = OptionSpec::find(name)?;
        let given = self.argument(spec).cloned();
        let given = given.or_else(|| self.variable(spec).map(OptionValue::Text));
        let default = Some(spec.default).filter(|default| !default.is_empty());
        Ok((spec, given.or_else(|| default.map(OptionValue::from))))
    }

    /// Where any text would do, an empty one is none.
    fn argument(&self, spec: &OptionSpec) -> Option<&OptionValue> {
        let takes_any = matches!(spec.kind, OptionKind::Text | OptionKind::Secret);
        self.arguments.get(spec.name).filter(|value| match value {
            OptionValue::Text(text) => !(takes_any && text.is_empty()),
            _ => true,
        })
    }

    fn variable(&self, spec: &OptionSpec) -> Option<String> {
        (self.env)(spec.env).filter(|text| !text.is_empty())
    }

    pub(super) fn is_given(&self, name: &str) -> Result<bool> {
        let spec = OptionSpec::find(name)?;
        Ok(self.argument(spec).is_some() || self.variable(spec).is_some())
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<String>> {
        match self.value(name)?.1 {
            None => Ok(None),
            Some(OptionValue::Text(text)) => {
                if text.contains(['\0', char::REPLACEMENT_CHARACTER]) {
                    let what = "holds a NUL or what is not UTF-8; give it without";
                    return Err(Error::configuration(name, what));
                }
                Ok(Some(text))
            }
            Some(_) => Err(Error::configuration(name, "must be text")),
        }
    }

    pub(super) fn required(&self, name: &str) -> Result<String> {
        self.text(name)?.ok_or_else(|| {
            let env = OptionSpec::find(name).map_or("", |spec| spec.env);
            Error::configuration(name, format!("is required; pass it, or set {env}"))
        })
    }

    pub(super) fn choice<T>(&self, name: &str, from_word: impl Fn(&str) -> Option<T>) -> Result<T> {
        let (spec, value) = self.value(name)?;
        let OptionKind::Choice(words) = spec.kind else {
            return Err(Error::configuration(name, "is not a choice"));
        };
        let given = match value {
            Some(OptionValue::Text(word)) => word,
            other => format!("{other:?}"),
        };
        from_word(&given).ok_or_else(|| {
            let hint = did_you_mean(&given, words.iter().copied());
            Error::configuration(name, format!("unknown value {given:?}{hint}"))
        })
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool> {
        let (_, value) = self.value(name)?;
        match &value {
            Some(OptionValue::Flag(flag)) => Ok(*flag),
            Some(OptionValue::Text(word)) if matches!(word.as_str(), "true" | "1" | "yes") => {
                Ok(true)
            }
            Some(OptionValue::Text(word)) if matches!(word.as_str(), "false" | "0" | "no") => {
                Ok(false)
            }
            _ => {
                let given = shown_value(value.as_ref());
                Err(Error::configuration(name, format!("must be true or false, not {given}")))
            }
        }
    }

    pub(super) fn count(&self, name: &str) -> Result<u64> {
        let (spec, value) = self.value(name)?;
        let (OptionKind::Count { min, max } | OptionKind::Bytes { min, max }) = spec.kind else {
            return Err(Error::configuration(name, "is not a number"));
        };
        let number = match &value {
            Some(OptionValue::Integer(number)) => u64::try_from(*number).ok(),
            Some(OptionValue::Number(number)) if number.fract() == 0.0 && *number >= 0.0 => {
                Some(*number as u64)
            }
            Some(OptionValue::Text(text)) => text.trim().parse().ok(),
            _ => None,
        };
        number.filter(|number| (min..=max).contains(number)).ok_or_else(|| {
            let given = shown_value(value.as_ref());
            let message = format!("must be a whole number from {min} to {max}, not {given}");
            Error::configuration(name, message)
        })
    }

    pub(super) fn duration(&self, name: &str) -> Result<Duration> {
        let (spec, value) = self.value(name)?;
        let OptionKind::Seconds { min, max } = spec.kind else {
            return Err(Error::configuration(name, "is not a duration"));
        };
        let is_argument = self.arguments.contains_key(name);
        let is_duration = matches!(value, Some(OptionValue::Duration(_)));
        let unit = if is_argument && !is_duration { self.unit } else { TimeUnit::Seconds };
        let given: Option<f64> = match &value {
            Some(OptionValue::Number(number)) => Some(*number),
            Some(OptionValue::Integer(number)) => Some(*number as f64),
            Some(OptionValue::Duration(duration)) => Some(duration.as_secs_f64()),
            Some(OptionValue::Text(text)) => text.trim().parse().ok(),
            _ => None,
        };
        let seconds = given.map(|given| given / unit.per_second());
        if let Some(seconds) = seconds.filter(|seconds| (min..=max).contains(seconds)) {
            return Ok(Duration::from_secs_f64(seconds));
        }
        let given = shown_value(value.as_ref());
        Err(Error::configuration(name, unit.out_of_range(&given, seconds, min, max)))
    }
}

fn shown_value(value: Option<&OptionValue>) -> String {
    match value {
        None => "nothing".into(),
        Some(OptionValue::Text(text)) => format!("{text:?}"),
        Some(OptionValue::Integer(number)) => number.to_string(),
        Some(OptionValue::Number(number)) => number.to_string(),
        Some(OptionValue::Flag(flag)) => flag.to_string(),
        Some(OptionValue::Duration(duration)) => format!("{} seconds", duration.as_secs_f64()),
    }
}
