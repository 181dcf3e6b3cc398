//! `describe SUBJECT`: what the core says of itself, as a generated file wants it. `cargo xtask gen` runs this.
//!
//! An example and not a part of `xtask`, so that `xtask` itself builds in seconds, without the core.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "standard output is what it is for")]

#[path = "describe/node.rs"]
mod node;

use std::process::ExitCode;

use dodo_ingestion::{OPTIONS, OptionKind, OptionSpec};

fn main() -> ExitCode {
    let subject = std::env::args().nth(1);
    match subject.as_deref() {
        Some("configuration") => print!("{}", configuration(OPTIONS)),
        Some("node-options") => print!("{}", node::options(OPTIONS)),
        other => {
            eprintln!(
                "describe: no such subject: {other:?}; there are: configuration, node-options"
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The reference of the options, `docs/configuration.md`.
fn configuration(options: &[OptionSpec]) -> String {
    let rows: String = options.iter().map(row).collect();
    let sections: String = options.iter().map(section).collect();
    format!(
        "<!-- Written by `cargo xtask gen` from the table of options in crates/dodo-ingestion. -->

# Configuration

An option's value is the argument that the program gives, else the environment variable, else the default.
An empty text counts as not given, an empty environment variable as not set. In Node they are those of `process.env`, of which a worker has its own. The names are the same in every language, in that language's case.
Lengths of time are in seconds here and in environment variables; Node's options take milliseconds, Kotlin's and Rust's a `Duration`.
An option that is not in this list is refused.

| option | takes | default |
|---|---|---|
{rows}{sections}"
    )
}

fn row(option: &OptionSpec) -> String {
    let name = option.name;
    format!("| [`{name}`](#{name}) | {} | {} |\n", takes(option.kind), default(option))
}

fn section(option: &OptionSpec) -> String {
    let OptionSpec { name, doc, env, .. } = option;
    let takes = takes(option.kind);
    let default = default(option);
    format!(
        "\n## `{name}`\n\n{doc}\n\n- Takes {takes}\n- Default: {default}\n- Environment: `{env}`\n"
    )
}

fn takes(kind: OptionKind) -> String {
    match kind {
        OptionKind::Text => "text".to_owned(),
        OptionKind::Secret => "text, a secret".to_owned(),
        OptionKind::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            words.join(", ")
        }
        OptionKind::Flag => "`true` or `false`".to_owned(),
        OptionKind::Seconds { min, max } => format!("seconds, {min} to {max}"),
        OptionKind::Count { min, max } => format!("a whole number, {min} to {max}"),
        OptionKind::Bytes { min, max } => format!("bytes, {} to {}", bytes(min), bytes(max)),
        // The type may grow; until this function knows what has grown, its own words will do.
        other => format!("{other:?}"),
    }
}

fn default(option: &OptionSpec) -> String {
    if option.default.is_empty() {
        return "none".to_owned();
    }
    match (option.kind, option.default.parse()) {
        (OptionKind::Bytes { .. }, Ok(number)) => bytes(number),
        _ => format!("`{}`", option.default),
    }
}

/// A number of bytes in the largest unit that divides it.
fn bytes(number: u64) -> String {
    [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|&(bits, _)| number > 0 && number.trailing_zeros() >= bits)
        .map_or_else(|| number.to_string(), |(bits, unit)| format!("{} {unit}", number >> bits))
}
