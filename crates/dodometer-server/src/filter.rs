//! A meter's filter: which of the events of its name it counts.
//!
//! A condition looks at one metadata property. An event that lacks the property does not match, whatever
//! the operator: `not_equals` and `does_not_contain` included. Otherwise
//!
//! | operator | matches |
//! |---|---|
//! | `equals`, `not_equals` | text with text, letter by letter; number with number, whatever their JSON types (`200` is `200.0`); boolean with boolean. A text that spells the number or the boolean of the other side is it: `"200"` is `200`, `"true"` is `true`. What cannot be compared is not equal |
//! | `greater_than` and the others of order | numbers, and texts that spell one; anything else does not match |
//! | `contains`, `does_not_contain` | the property is a text; what is looked for is the condition's value as it would be written. A property of another type matches neither |
//!
//! Texts are compared with case. Numbers are compared as decimals, as units are added up.

use std::cmp::Ordering;
use std::fmt;

use rust_decimal::Decimal;
use serde::de::{self, Deserialize, Deserializer};
use serde::{Deserialize as Read, Serialize as Write};

use crate::decimal;
use crate::metadata::{Metadata, Value};
use crate::object::Object;

/// How deep filters may nest.
const MAX_DEPTH: usize = 3;

/// `{conjunction, clauses}`, the clauses all conditions or all filters.
#[derive(Debug, Clone, PartialEq, Read, Write)]
pub(crate) struct Filter {
    conjunction: Conjunction,
    clauses: Clauses,
}

#[derive(Debug, Clone, Copy, PartialEq, Read, Write)]
#[serde(rename_all = "lowercase")]
enum Conjunction {
    And,
    Or,
}

#[derive(Debug, Clone, PartialEq, Write)]
#[serde(untagged)]
enum Clauses {
    Conditions(Vec<Condition>),
    Filters(Vec<Filter>),
}

#[derive(Debug, Clone, PartialEq, Read, Write)]
struct Condition {
    key: String,
    operator: Operator,
    value: Operand,
}

#[derive(Debug, Clone, Copy, PartialEq, Read, Write)]
#[serde(rename_all = "snake_case")]
enum Operator {
    Equals,
    NotEquals,
    GreaterThan,
    GreaterThanOrEquals,
    LessThan,
    LessThanOrEquals,
    Contains,
    DoesNotContain,
}

/// What a property is held against.
#[derive(Debug, Clone, PartialEq, Read, Write)]
#[serde(try_from = "serde_json::Value", into = "serde_json::Value")]
struct Operand {
    given: serde_json::Value,
    /// The value as a quantity: a number, or a text that spells one.
    number: Option<Decimal>,
}

impl Filter {
    /// The filter that asks of each property that it equals a text.
    pub(crate) fn equal(properties: Vec<(String, String)>) -> Self {
        let equal = |(key, text): (String, String)| Condition {
            key,
            operator: Operator::Equals,
            value: Operand { number: decimal::parse(&text), given: text.into() },
        };
        let clauses = Clauses::Conditions(properties.into_iter().map(equal).collect());
        Self { conjunction: Conjunction::And, clauses }
    }

    /// What is wrong with the filter beyond its shape.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.check_at(1)
    }

    fn check_at(&self, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("a filter must not nest more than {MAX_DEPTH} levels deep"));
        }
        match &self.clauses {
            Clauses::Filters(filters) => {
                filters.iter().try_for_each(|filter| filter.check_at(depth + 1))
            }
            Clauses::Conditions(conditions) if conditions.is_empty() => {
                Err("filter.clauses must not be empty".to_owned())
            }
            Clauses::Conditions(conditions) => {
                if conditions.iter().any(|condition| condition.key.is_empty()) {
                    return Err("a filter's key must not be empty".to_owned());
                }
                Ok(())
            }
        }
    }

    /// Whether an event with this metadata is counted.
    pub(crate) fn matches(&self, metadata: &Metadata<'_>) -> bool {
        match &self.clauses {
            Clauses::Filters(filters) => {
                self.conjunction.holds(filters, |filter| filter.matches(metadata))
            }
            Clauses::Conditions(conditions) => {
                self.conjunction.holds(conditions, |condition| condition.matches(metadata))
            }
        }
    }
}

impl Conjunction {
    fn holds<T>(self, clauses: &[T], clause: impl FnMut(&T) -> bool) -> bool {
        match self {
            Self::And => clauses.iter().all(clause),
            Self::Or => clauses.iter().any(clause),
        }
    }
}

impl Condition {
    fn matches(&self, metadata: &Metadata<'_>) -> bool {
        let Some(found) = metadata.get(&self.key) else { return false };
        let order = || found.quantity()?.partial_cmp(&self.value.number?);
        match self.operator {
            Operator::Equals => self.value.equals(found),
            Operator::NotEquals => !self.value.equals(found),
            Operator::GreaterThan => order().is_some_and(Ordering::is_gt),
            Operator::GreaterThanOrEquals => order().is_some_and(Ordering::is_ge),
            Operator::LessThan => order().is_some_and(Ordering::is_lt),
            Operator::LessThanOrEquals => order().is_some_and(Ordering::is_le),
            Operator::Contains => self.value.is_within(found) == Some(true),
            Operator::DoesNotContain => self.value.is_within(found) == Some(false),
        }
    }
}

impl Operand {
    fn equals(&self, found: &Value<'_>) -> bool {
        match (&self.given, found) {
            (serde_json::Value::String(given), Value::Text(found)) => given == found,
            (serde_json::Value::Bool(given), Value::Boolean(found)) => given == found,
            (serde_json::Value::Bool(given), Value::Text(found)) => spells(found, *given),
            (serde_json::Value::String(given), Value::Boolean(found)) => spells(given, *found),
            _ => self.number.is_some() && self.number == found.quantity(),
        }
    }

    /// Whether a text contains the value; none if what was found is no text.
    fn is_within(&self, found: &Value<'_>) -> Option<bool> {
        let Value::Text(found) = found else { return None };
        Some(match &self.given {
            serde_json::Value::String(given) => found.contains(given.as_str()),
            given => found.contains(&given.to_string()),
        })
    }
}

fn spells(text: &str, boolean: bool) -> bool {
    text == if boolean { "true" } else { "false" }
}

impl TryFrom<serde_json::Value> for Operand {
    type Error = &'static str;

    fn try_from(given: serde_json::Value) -> Result<Self, Self::Error> {
        let number = match &given {
            serde_json::Value::Number(number) => number
                .as_i64()
                .map(Decimal::from)
                .or_else(|| number.as_u64().map(Decimal::from))
                .or_else(|| number.as_f64().map(decimal::from_double)),
            serde_json::Value::String(text) => decimal::parse(text),
            serde_json::Value::Bool(_) => None,
            _ => return Err("a filter's value must be a string, a number or a boolean"),
        };
        Ok(Self { given, number })
    }
}

impl From<Operand> for serde_json::Value {
    fn from(operand: Operand) -> Self {
        operand.given
    }
}

/// By hand, so that a mistake in one clause is told as what it is.
impl<'de> Deserialize<'de> for Clauses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fn each<T: de::DeserializeOwned, E: de::Error>(
            clauses: Vec<serde_json::Value>,
        ) -> Result<Vec<T>, E> {
            let read = |(index, clause)| {
                let told =
                    |error: &dyn fmt::Display| E::custom(format!("clauses[{index}]: {error}"));
                let read = serde_json::from_value(clause).map_err(|error| told(&error));
                read.map(|Object(clause)| clause)
            };
            clauses.into_iter().enumerate().map(read).collect()
        }
        let clauses = Vec::<serde_json::Value>::deserialize(deserializer)?;
        let nested = clauses.iter().filter(|clause| clause.get("clauses").is_some()).count();
        match nested {
            0 => each(clauses).map(Self::Conditions),
            all if all == clauses.len() => each(clauses).map(Self::Filters),
            _ => Err(de::Error::custom(
                "filter.clauses must be all conditions or all nested filters",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        let mut filter =
            r#"{"conjunction":"and","clauses":[{"key":"k","operator":"equals","value":1}]}"#
                .to_owned();
        for _ in 1..depth {
            filter = format!(r#"{{"conjunction":"or","clauses":[{filter}]}}"#);
        }
        filter
    }

    fn read(json: &str) -> Result<Filter, String> {
        let filter: Filter = serde_json::from_str(json).map_err(|error| error.to_string())?;
        filter.check().map(|()| filter)
    }

    fn matches(filter: &str, metadata: &str) -> bool {
        read(filter).unwrap().matches(&serde_json::from_str(metadata).unwrap())
    }

    #[test]
    fn the_form_is_the_published_one() {
        for depth in [1, 3] {
            let filter = read(&nested(depth)).unwrap();
            assert_eq!(serde_json::to_string(&filter).unwrap(), nested(depth));
        }
        let condition = r#"{"key":"k","operator":"equals","value":1}"#;
        for (bad, told) in [
            (nested(4).as_str(), "3 levels"),
            (r#"{"conjunction":"xor","clauses":[]}"#, "`and` or `or`"),
            (r#"{"conjunction":"and","clauses":[]}"#, "must not be empty"),
            (
                r#"{"conjunction":"and","clauses":[{"key":"","operator":"equals","value":1}]}"#,
                "key must not be empty",
            ),
            (
                r#"{"conjunction":"and","clauses":[{"key":"k","operator":"like","value":1}]}"#,
                "clauses[0]: unknown variant `like`, expected one of `equals`",
            ),
            (
                r#"{"conjunction":"and","clauses":[{"key":"k","operator":"equals","value":[]}]}"#,
                "a string, a number or a boolean",
            ),
            (
                &format!(r#"{{"conjunction":"or","clauses":[{condition},{}]}}"#, nested(1)),
                "all conditions or all nested filters",
            ),
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.contains(told), "{bad}: {error}");
        }
    }

    #[test]
    fn each_operator_by_type() {
        for (operator, value, matching, others) in [
            ("equals", r#""GET""#, &[r#""GET""#][..], &[r#""get""#, "1", "true"][..]),
            (
                "equals",
                "200",
                &["200", "200.0", r#""200""#, r#""200.0""#],
                &["201", "true", r#""2e2""#],
            ),
            ("equals", r#""200""#, &["200", r#""200""#], &[r#""200.0""#, "false"]),
            ("equals", "0.1", &["0.1", r#""0.10""#], &["0.10000000001", r#""a""#]),
            ("equals", "true", &["true", r#""true""#], &["false", "1", r#""True""#]),
            ("equals", r#""false""#, &["false", r#""false""#], &["true", "0"]),
            ("equals", "9223372036854775807", &["9223372036854775807"], &["9223372036854775806"]),
            ("not_equals", "200", &["201", "true", r#""x""#], &["200", r#""200""#]),
            ("not_equals", r#""GET""#, &[r#""POST""#, "1"], &[r#""GET""#]),
            ("greater_than", "10", &["11", "10.5", r#""11""#], &["10", "9", r#""x""#, "true"]),
            ("greater_than", r#""10""#, &["11"], &["10", r#""9""#]),
            ("greater_than", "true", &[], &["true", "2"]),
            ("greater_than_or_equals", "10", &["10", "11"], &["9.99", "false"]),
            ("less_than", "0", &["-1", r#""-0.5""#], &["0", "1", r#""""#]),
            ("less_than_or_equals", "0.5", &["0.5", "-3"], &["0.51"]),
            ("contains", r#""/v1/""#, &[r#""/v1/users""#], &[r#""/V1/""#, "1", "true"]),
            ("contains", "20", &[r#""1203""#], &["1203", r#""2""#]),
            (
                "does_not_contain",
                r#""bot""#,
                &[r#""curl""#, r#""Bot""#],
                &[r#""a bot""#, "1", "true"],
            ),
        ] {
            let filter = format!(
                r#"{{"conjunction":"and","clauses":[{{"key":"k","operator":"{operator}","value":{value}}}]}}"#
            );
            for (properties, expected) in [(matching, true), (others, false)] {
                for property in properties {
                    let metadata = format!(r#"{{"other":1,"k":{property}}}"#);
                    assert_eq!(matches(&filter, &metadata), expected, "{filter} {property}");
                }
            }
            assert!(!matches(&filter, r#"{"K":1}"#), "what is missing matches nothing: {filter}");
        }
    }

    #[test]
    fn filters_nest_and_join() {
        let is = |key: &str, value: i32| {
            format!(r#"{{"key":"{key}","operator":"equals","value":{value}}}"#)
        };
        let join = |how: &str, clauses: &[String]| {
            format!(r#"{{"conjunction":"{how}","clauses":[{}]}}"#, clauses.join(","))
        };
        // a = 1 and (b = 2 or (c = 3 and d = 4))
        let inner = join("and", &[is("c", 3), is("d", 4)]);
        let either = join("or", &[join("and", &[is("b", 2)]), inner]);
        let filter = join("and", &[join("or", &[is("a", 1)]), either]);
        for (metadata, expected) in [
            (r#"{"a":1,"b":2}"#, true),
            (r#"{"a":1,"c":3,"d":4}"#, true),
            (r#"{"a":1,"c":3}"#, false),
            (r#"{"b":2,"c":3,"d":4}"#, false),
            (r#"{"a":1}"#, false),
            (r"{}", false),
        ] {
            assert_eq!(matches(&filter, metadata), expected, "{metadata}");
        }
    }
}
