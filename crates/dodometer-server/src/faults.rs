//! Misbehaving on purpose: what a fault is, and the words that ask for one.
//!
//! A fault is a list of words with commas between them. One of them names what goes wrong, the others
//! when: `status=429,retry_after=2,share=0.1`. In JSON the same words are the names of an object,
//! `{"status": 429, "retry_after": 2, "share": 0.1}`; a word without a value is `true` there. What is
//! decided of a request is in [`active`], without I/O; the HTTP side carries it out.

mod active;

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;

pub(crate) use active::{Asked, Bend, End, Faults, FaultsView, MAX_FAULTS, Plan};

use crate::{Error, ErrorKind, duration};

/// The words that name what goes wrong.
const KINDS: &str = "status, unauthorized, rate_limit, too_large, latency, hang, reset, truncate, html, \
                     count, skew, unknown_customer, forget";
const OPTIONS: &str = "on, share, after, times, for, stage, retry_after";
const MAX_LATENCY: Duration = Duration::from_secs(300);

/// Something that goes wrong on purpose, as `--fault` and `POST /_dev/faults` name it.
///
/// ```
/// use dodometer_server::Fault;
///
/// let fault: Fault = "reset=after_commit,times=3".parse()?;
/// assert_eq!(fault.to_string(), "reset=after_commit,times=3");
/// # Ok::<(), dodometer_server::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    text: String,
    kind: Kind,
    /// None: all routes of the billing API.
    route: Option<Route>,
    share: f64,
    after: u64,
    times: Option<u64>,
    length: Option<Duration>,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// What ends a request by itself.
    Ends(What, Stage),
    Latency(RangeInclusive<Duration>),
    RateLimit,
    TooLarge(usize),
    Count(Count),
    Skew(SignedDuration),
    /// None: all customers.
    UnknownCustomer(Option<String>),
    Forget(Duration),
}

/// How a request ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    Status { code: u16, retry_after: Option<u64> },
    TooLarge(usize),
    Hang,
    Reset,
    Truncate,
    Html,
}

/// When a request ends: before it has done anything, or when all is done but the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    BeforeCommit,
    AfterCommit,
}

/// What `ingested_count` is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    Exactly(u64),
    OffBy(i64),
}

/// The routes that faults tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Ingest,
    Lookup,
    Events,
    Meters,
}

impl Route {
    /// The route that a path of the billing API belongs to.
    pub(crate) fn of(path: &str) -> Self {
        match path {
            "/events/ingest" => Self::Ingest,
            "/events" => Self::Events,
            path if path.starts_with("/events/") => Self::Lookup,
            _ => Self::Meters,
        }
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let words = text.split(',').map(|word| match word.split_once('=') {
            Some((name, value)) => (name.trim().to_owned(), Some(value.trim().to_owned())),
            None => (word.trim().to_owned(), None),
        });
        Self::from_words(words.collect())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Fault {
    /// Reads a fault from JSON: its text, or an object of its words.
    pub(crate) fn from_json(json: &serde_json::Value) -> Result<Self, Error> {
        use serde_json::Value;
        match json {
            Value::String(text) => text.parse(),
            Value::Object(words) => {
                let word = |(name, value): (&String, &Value)| match value {
                    Value::Bool(true) => Ok((name.clone(), None)),
                    Value::String(text) => Ok((name.clone(), Some(text.clone()))),
                    Value::Number(number) => Ok((name.clone(), Some(number.to_string()))),
                    other => Err(bad(name, &other.to_string(), "give a text, a number or true")),
                };
                Self::from_words(words.iter().map(word).collect::<Result<_, _>>()?)
            }
            other => Err(error(format!(
                "{other} is no fault: give a text such as \"status=503,times=3\", or an object such \
                 as {{\"status\": 503, \"times\": 3}}"
            ))),
        }
    }

    fn from_words(words: Vec<(String, Option<String>)>) -> Result<Self, Error> {
        let text: Vec<_> =
            words.iter().map(|(name, value)| shown(name, value.as_deref())).collect();
        let mut words = Words(words);
        if let Some(name) = words.repeated() {
            return Err(twice(name));
        }
        let mut kind: Option<(String, Kind)> = None;
        for name in KINDS.split(", ").filter(|name| words.has(name)).collect::<Vec<_>>() {
            if let Some((other, _)) = &kind {
                return Err(error(format!(
                    "{other} and {name} are two faults: give each one of its own"
                )));
            }
            kind = Some((name.to_owned(), read_kind(name, &mut words)?));
        }
        let Some((name, kind)) = kind else {
            let given = text.join(",");
            return Err(error(format!("{given:?} names no fault: give one of {KINDS}")));
        };
        let default_route = if kind == Kind::RateLimit { None } else { Some(Route::Ingest) };
        let route =
            words.read("on", default_route, "ingest, lookup, events, meters or all", |on| {
                Some(match on {
                    "ingest" => Some(Route::Ingest),
                    "lookup" => Some(Route::Lookup),
                    "events" => Some(Route::Events),
                    "meters" => Some(Route::Meters),
                    "all" => None,
                    _ => return None,
                })
            })?;
        if kind.is_of_ingestion() && route != Some(Route::Ingest) {
            return Err(error(format!("{name} is of ingest requests only: leave out `on`")));
        }
        let whole = "a whole number";
        let share =
            words.read("share", 1.0, "more than 0 and at most 1, such as 0.1", |share| {
                share.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0)
            })?;
        let after = words.read("after", 0, whole, |after| after.parse().ok())?;
        let times = words.read("times", None, "a whole number of at least 1", |times| {
            times.parse().ok().filter(|times| *times > 0).map(Some)
        })?;
        let length = words.read("for", None, "a duration such as 30s", |length| {
            duration::parse(length).ok().map(Some)
        })?;
        if let Some((left, value)) = words.0.first() {
            let word = shown(left, value.as_deref());
            return Err(error(match left.as_str() {
                "stage" | "retry_after" => format!("{left} does not go with {name}: leave it out"),
                _ => format!("{word:?} is not known: a fault is one of {KINDS}, with {OPTIONS}"),
            }));
        }
        Ok(Self { text: text.join(","), kind, route, share, after, times, length })
    }
}

impl Kind {
    fn is_of_ingestion(&self) -> bool {
        matches!(
            self,
            Self::TooLarge(_) | Self::Count(_) | Self::UnknownCustomer(_) | Self::Forget(_)
        )
    }
}

/// The words not read yet.
struct Words(Vec<(String, Option<String>)>);

impl Words {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// A known word that is there more than once.
    fn repeated(&self) -> Option<&str> {
        let mut known = KINDS.split(", ").chain(OPTIONS.split(", "));
        known.find(|known| self.0.iter().filter(|(name, _)| name == known).count() > 1)
    }

    /// Takes a word that is there, for its value.
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        self.0.remove(at).1
    }

    /// Takes a word that has to have a value, and reads that.
    fn read<T>(
        &mut self,
        name: &str,
        default: T,
        way_out: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Error> {
        if !self.has(name) {
            return Ok(default);
        }
        let given = self.take(name).unwrap_or_default();
        read(&given).ok_or_else(|| bad(name, &given, &format!("give {way_out}")))
    }
}

fn read_kind(name: &str, words: &mut Words) -> Result<Kind, Error> {
    let value = words.take(name);
    let given = value.as_deref().unwrap_or_default();
    let must = |way_out: &str| bad(name, given, &format!("give {way_out}"));
    if ["unauthorized", "html", "truncate", "rate_limit"].contains(&name) && value.is_some() {
        return Err(must(&format!("only {name}, it takes no value")));
    }
    Ok(match name {
        "status" | "unauthorized" => {
            let code = if name == "unauthorized" {
                401
            } else {
                let code = given.parse().ok().filter(|code| (300..600).contains(code));
                code.ok_or_else(|| must("300 to 599, such as status=503"))?
            };
            let retry_after = words.read("retry_after", None, "whole seconds", |seconds| {
                seconds.parse().ok().map(Some)
            })?;
            Kind::Ends(What::Status { code, retry_after }, stage(words)?)
        }
        "html" => Kind::Ends(What::Html, stage(words)?),
        // Their value is short for `stage`.
        "hang" | "reset" => {
            if let Some(value) = value {
                if words.has("stage") {
                    return Err(twice("stage"));
                }
                words.0.push(("stage".to_owned(), Some(value)));
            }
            let what = if name == "hang" { What::Hang } else { What::Reset };
            Kind::Ends(what, stage(words)?)
        }
        "truncate" => Kind::Ends(What::Truncate, Stage::AfterCommit),
        "rate_limit" => Kind::RateLimit,
        "too_large" => Kind::TooLarge(bytes(given).ok_or_else(|| must("a size such as 64KiB"))?),
        "latency" => {
            let (least, most) = given.split_once("..").unwrap_or((given, given));
            let read = |text| duration::parse(text).ok().filter(|length| *length <= MAX_LATENCY);
            let (least, most) = read(least)
                .zip(read(most))
                .ok_or_else(|| must("up to 300s, such as 200ms or 200ms..2s"))?;
            if least > most {
                return Err(must("the shorter time first, such as 200ms..2s"));
            }
            Kind::Latency(least..=most)
        }
        "count" => Kind::Count(
            match given.as_bytes().first() {
                Some(b'+' | b'-') => given.parse().ok().map(Count::OffBy),
                _ => given.parse().ok().map(Count::Exactly),
            }
            .ok_or_else(|| {
                must("a number such as 0, or what to add to the right one, such as +1")
            })?,
        ),
        "skew" => Kind::Skew(
            duration::parse_signed(given)
                .ok()
                .filter(|skew| skew.unsigned_abs() <= crate::clock::MAX_OFFSET.unsigned_abs())
                .ok_or_else(|| must("a duration of up to 87600h, such as 2h or -90s"))?,
        ),
        "forget" => {
            Kind::Forget(duration::parse(given).map_err(|_| must("a duration such as 24h or 0s"))?)
        }
        // The one that is left: `unknown_customer`.
        _ => Kind::UnknownCustomer(value),
    })
}

fn stage(words: &mut Words) -> Result<Stage, Error> {
    words.read("stage", Stage::BeforeCommit, "before_commit or after_commit", |stage| match stage {
        "before_commit" => Some(Stage::BeforeCommit),
        "after_commit" => Some(Stage::AfterCommit),
        _ => None,
    })
}

/// Reads a size such as `1000`, `64KiB` or `1MiB`.
fn bytes(text: &str) -> Option<usize> {
    let (number, unit) = match (text.strip_suffix("KiB"), text.strip_suffix("MiB")) {
        (Some(number), _) => (number, 1024),
        (_, Some(number)) => (number, 1024 * 1024),
        _ => (text, 1),
    };
    number.trim().parse::<usize>().ok()?.checked_mul(unit)
}

fn shown(name: &str, value: Option<&str>) -> String {
    value.map_or_else(|| name.to_owned(), |value| format!("{name}={value}"))
}

fn bad(name: &str, given: &str, way_out: &str) -> Error {
    error(format!("{name} is {given:?}: {way_out}"))
}

fn twice(name: &str) -> Error {
    error(format!("{name} is given twice: leave one out"))
}

fn error(message: String) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        for (text, json) in [
            ("status=429,retry_after=2,share=0.1", r#"{"status":429,"retry_after":2,"share":0.1}"#),
            ("hang,times=1", r#"{"hang":true,"times":"1"}"#),
            ("unknown_customer=cus_7,after=2", r#"{"unknown_customer":"cus_7","after":2}"#),
        ] {
            let json: serde_json::Value = serde_json::from_str(json).unwrap();
            let (read, other) = (text.parse::<Fault>().unwrap(), Fault::from_json(&json).unwrap());
            assert_eq!(
                (&read.kind, read.share, read.after),
                (&other.kind, other.share, other.after)
            );
            assert_eq!(Fault::from_json(&text.into()).unwrap(), read);
            assert_eq!(read.to_string(), text);
        }
        let kind = |text: &str| text.parse::<Fault>().unwrap().kind;
        assert_eq!(kind("unauthorized"), kind("status=401"));
        assert_eq!(kind("reset=after_commit"), kind("reset, stage=after_commit"));
        assert_eq!(kind("hang"), kind("hang,stage=before_commit"));
        assert_eq!(kind("latency=2s"), kind("latency=2s..2s"));
        assert_eq!(kind("too_large=64KiB"), Kind::TooLarge(65_536));
        assert_eq!(kind("count=+1"), Kind::Count(Count::OffBy(1)));
    }

    #[test]
    fn a_bad_one_names_the_field_what_was_given_and_the_way_out() {
        for (text, told) in [
            ("", r#""" names no fault: give one of status, "#),
            ("share=0.1", r#""share=0.1" names no fault"#),
            ("hang,reset", "hang and reset are two faults"),
            ("status", r#"status is "": give 300 to 599"#),
            ("status=200", r#"status is "200": give 300 to 599"#),
            ("status=503,share=2", r#"share is "2": give more than 0 and at most 1"#),
            ("status=503,share=NaN", "share"),
            ("status=503,times=0", r#"times is "0": give a whole number of at least 1"#),
            ("status=503,retry_after=soon", r#"retry_after is "soon": give whole seconds"#),
            ("status=503,for=3", r#"for is "3": give a duration such as 30s"#),
            ("status=503,for=3s,for=4s", "for is given twice"),
            ("hang,hang", "hang is given twice"),
            ("reset=after_commit,stage=before_commit", "stage is given twice"),
            ("html,stage=after_commit,stage=after_commit", "stage is given twice"),
            ("status=503,retry_after=1,retry_after=2", "retry_after is given twice"),
            ("status=503,on=nowhere", r#"on is "nowhere": give ingest, lookup"#),
            ("status=503,shares=0.1", r#""shares=0.1" is not known"#),
            ("hang,retry_after=3", "retry_after does not go with hang"),
            ("truncate,stage=before_commit", "stage does not go with truncate"),
            ("hang=sometimes", r#"stage is "sometimes": give before_commit or after_commit"#),
            ("html=1", "it takes no value"),
            ("latency=2s..1s", r#"latency is "2s..1s": give the shorter time first"#),
            ("latency=1s..301s", "300s"),
            ("latency=1h", "300s"),
            ("count=many", r#"count is "many""#),
            ("skew=1d", r#"skew is "1d""#),
            ("forget", r#"forget is "": give a duration"#),
            ("too_large=1GB", r#"too_large is "1GB": give a size"#),
            ("count=1,on=all", "count is of ingest requests only"),
        ] {
            let error = text.parse::<Fault>().unwrap_err();
            assert!(error.to_string().contains(told), "{text}: {error}");
        }
        for json in ["7", "[]", r#"{"status":[503]}"#, r#"{"hang":false}"#, "{}"] {
            let json = serde_json::from_str(json).unwrap();
            assert!(Fault::from_json(&json).is_err(), "{json}");
        }
    }
}
