//! The form of a meter's filter.
//!
//! Filters are not evaluated yet, and so are refused; but a malformed one is told what is wrong with
//! it first, so that the answer stays true once they are.

use serde::Deserialize;
use serde_json::Value;

/// How deep filters may nest.
const MAX_DEPTH: usize = 3;

/// `{conjunction, clauses}`, the clauses all conditions or all filters.
#[derive(Debug, Deserialize)]
pub(crate) struct Filter {
    #[serde(rename = "conjunction")]
    _conjunction: Conjunction,
    clauses: Clauses,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Conjunction {
    And,
    Or,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "filter.clauses must be all conditions or all nested filters")]
enum Clauses {
    Conditions(Vec<Condition>),
    Filters(Vec<Filter>),
}

#[derive(Debug, Deserialize)]
struct Condition {
    key: String,
    #[serde(rename = "operator")]
    _operator: Operator,
    value: Value,
}

#[derive(Debug, Deserialize)]
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

impl Filter {
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
            Clauses::Conditions(conditions) => conditions.iter().try_for_each(Condition::check),
        }
    }
}

impl Condition {
    fn check(&self) -> Result<(), String> {
        if self.key.is_empty() {
            return Err("a filter's key must not be empty".to_owned());
        }
        match &self.value {
            Value::String(_) | Value::Number(_) | Value::Bool(_) => Ok(()),
            _ => Err("a filter's value must be a string, a number or a boolean".to_owned()),
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

    fn accepted(json: &str) -> bool {
        serde_json::from_str::<Filter>(json).is_ok_and(|filter| filter.check().is_ok())
    }

    #[test]
    fn the_form_is_the_published_one() {
        assert!(accepted(&nested(1)));
        assert!(accepted(&nested(3)));
        for bad in [
            nested(4).as_str(),
            r#"{"conjunction":"xor","clauses":[]}"#,
            r#"{"conjunction":"and","clauses":[]}"#,
            r#"{"conjunction":"and","clauses":[{"key":"","operator":"equals","value":1}]}"#,
            r#"{"conjunction":"and","clauses":[{"key":"k","operator":"like","value":1}]}"#,
            r#"{"conjunction":"and","clauses":[{"key":"k","operator":"equals","value":[]}]}"#,
        ] {
            assert!(!accepted(bad), "{bad}");
        }
    }
}
