//! An event's metadata: a flat object of texts, 64-bit integers, doubles and booleans.
//!
//! Invariants: every value is one of the four; keys are distinct (the last of two wins, as in any
//! JSON object). Texts are borrowed from the request body where they hold no escapes.

use std::borrow::Cow;
use std::fmt;

use rust_decimal::Decimal;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::decimal;

/// The most pairs that an event may carry.
pub(crate) const MAX_PAIRS: usize = 50;
/// The longest key, in characters.
pub(crate) const MAX_KEY_CHARS: usize = 100;
/// The longest text value, in characters.
pub(crate) const MAX_TEXT_CHARS: usize = 500;

/// A JSON string, borrowed where possible.
#[derive(serde::Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// The pairs, in the order in which they were sent.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Metadata<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

/// One value.
#[derive(Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Text(Cow<'a, str>),
    Integer(i64),
    Double(f64),
    Boolean(bool),
}

impl Metadata<'_> {
    /// The first published limit that the pairs break, in words.
    pub(crate) fn broken_limit(&self) -> Option<String> {
        if self.0.len() > MAX_PAIRS {
            return Some(format!("has {} pairs, more than {MAX_PAIRS}", self.0.len()));
        }
        self.0.iter().find_map(|(key, value)| match value {
            _ if longer_than(key, MAX_KEY_CHARS) => {
                Some(format!("has a key of more than {MAX_KEY_CHARS} characters"))
            }
            Value::Text(text) if longer_than(text, MAX_TEXT_CHARS) => {
                Some(format!("has a text of more than {MAX_TEXT_CHARS} characters"))
            }
            _ => None,
        })
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value<'_>> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// The value as a quantity: a number, or a text that spells one.
    pub(crate) fn quantity(&self, key: &str) -> Option<Decimal> {
        self.get(key)?.quantity()
    }

    /// The value as a double, when it is a number or a text that spells one.
    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        match self.get(key)? {
            Value::Integer(value) => Some(*value as f64),
            Value::Double(value) => Some(*value),
            Value::Text(text) => text.parse().ok().filter(|value: &f64| value.is_finite()),
            Value::Boolean(_) => None,
        }
    }

    /// The status of an answer over HTTP, as a number or a text.
    pub(crate) fn status(&self) -> Option<u16> {
        let status = self.number("status_code")?;
        ((100.0..1000.0).contains(&status) && status.fract() == 0.0).then_some(status as u16)
    }

    /// The value as it would be shown, unless that is empty.
    pub(crate) fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        match self.get(key)? {
            Value::Text(text) if text.is_empty() => None,
            Value::Text(text) => Some(Cow::Borrowed(text)),
            other => Some(Cow::Owned(other.to_string())),
        }
    }
}

fn longer_than(text: &str, chars: usize) -> bool {
    text.len() > chars && text.chars().nth(chars).is_some()
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(value) => value.fmt(f),
            Self::Double(value) => value.fmt(f),
            Self::Boolean(value) => value.fmt(f),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Metadata<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Metadata<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of metadata, or null")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs: Vec<(Cow<'de, str>, Value<'de>)> = Vec::new();
                while let Some(Text(key)) = map.next_key()? {
                    let value = Value::read(map.next_value()?).map_err(de::Error::custom)?;
                    // Past the limit the request is refused whatever follows, so the search for
                    // an equal key stays short.
                    let searched = pairs.len().min(MAX_PAIRS + 1);
                    match pairs[..searched].iter_mut().find(|(known, _)| *known == key) {
                        Some(pair) => pair.1 = value,
                        None => pairs.push((key, value)),
                    }
                }
                Ok(Metadata(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl Value<'_> {
    /// The value as a quantity: a number, or a text that spells one.
    pub(crate) fn quantity(&self) -> Option<Decimal> {
        match self {
            Self::Integer(value) => Some(Decimal::from(*value)),
            Self::Double(value) => Some(decimal::from_double(*value)),
            Self::Text(text) => decimal::parse(text),
            Self::Boolean(_) => None,
        }
    }
}

impl<'a> Value<'a> {
    /// Reads one value from its JSON text: serde's own number types cannot tell an integer that
    /// is too large from a double.
    fn read(raw: &'a RawValue) -> Result<Self, Cow<'static, str>> {
        let text = raw.get();
        match text.as_bytes().first() {
            Some(b'"') => serde_json::from_str(text)
                .map(|Text(text)| Self::Text(text))
                .map_err(|error| error.to_string().into()),
            Some(b't') => Ok(Self::Boolean(true)),
            Some(b'f') => Ok(Self::Boolean(false)),
            Some(b'{' | b'[') => Err("a metadata value must not be an object or an array".into()),
            Some(b'n') => Err("a metadata value must not be null".into()),
            _ if text.contains(['.', 'e', 'E']) => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Self::Double(value)),
                _ => Err("a metadata number does not fit a double".into()),
            },
            _ => text
                .parse()
                .map(Self::Integer)
                .map_err(|_| "a metadata integer does not fit 64 bits".into()),
        }
    }
}

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            match value {
                Value::Text(text) => map.serialize_entry(key, text)?,
                Value::Integer(value) => map.serialize_entry(key, value)?,
                Value::Double(value) => map.serialize_entry(key, value)?,
                Value::Boolean(value) => map.serialize_entry(key, value)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Metadata<'_>, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn values_keep_their_kind_and_are_written_as_they_were_read() {
        for json in [
            r"{}",
            r#"{"a":"x","b":1,"c":1.5,"d":true,"e":false}"#,
            r#"{"a":9223372036854775807,"b":-9223372036854775808}"#,
            r#"{"a":"say \"hi\"\n","ключ":"значение 🦤"}"#,
            r#"{"a":0.1,"b":1.0,"c":1e300}"#,
        ] {
            let metadata = read(json).unwrap();
            let written = serde_json::to_string(&metadata).unwrap();
            assert_eq!(read(&written).unwrap(), metadata, "{json}");
        }
        assert_eq!(read(r#"{"a":1}"#).unwrap().get("a"), Some(&Value::Integer(1)));
        assert_eq!(read(r#"{"a":1.0}"#).unwrap().get("a"), Some(&Value::Double(1.0)));
    }

    #[test]
    fn what_is_not_flat_or_does_not_fit_is_refused() {
        for json in [
            "[]",
            r#""text""#,
            r#"{"a":{}}"#,
            r#"{"a":[1]}"#,
            r#"{"a":null}"#,
            r#"{"a":9223372036854775808}"#,
            r#"{"a":-9223372036854775809}"#,
            r#"{"a":99999999999999999999}"#,
            r#"{"a":1e999}"#,
            r#"{"a":nope}"#,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }

    #[test]
    fn the_last_of_two_equal_keys_wins() {
        let metadata = read(r#"{"a":1,"b":2,"a":3}"#).unwrap();
        assert_eq!(serde_json::to_string(&metadata).unwrap(), r#"{"a":3,"b":2}"#);
    }

    #[test]
    fn limits_count_characters() {
        let pairs = |n: usize| {
            let pairs: Vec<_> = (0..n).map(|i| format!(r#""k{i}":1"#)).collect();
            format!("{{{}}}", pairs.join(","))
        };
        for (json, broken) in [
            (pairs(50), false),
            (pairs(51), true),
            (format!(r#"{{"{}":1}}"#, "é".repeat(100)), false),
            (format!(r#"{{"{}":1}}"#, "é".repeat(101)), true),
            (format!(r#"{{"a":"{}"}}"#, "🦤".repeat(500)), false),
            (format!(r#"{{"a":"{}"}}"#, "🦤".repeat(501)), true),
        ] {
            assert_eq!(read(&json).unwrap().broken_limit().is_some(), broken, "{json}");
        }
    }
}
