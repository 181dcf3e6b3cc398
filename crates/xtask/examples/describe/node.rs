//! `node/src/options.ts`: the options and the counts of a client as TypeScript has them.

use dodo_ingestion::{OptionKind, OptionSpec};

/// Where the counts are defined, with what they mean.
const STATS: &str = include_str!("../../../dodo-ingestion/src/stats.rs");

pub(crate) fn options(options: &[OptionSpec]) -> String {
    let members: String = options.iter().map(|option| member(option, options)).collect();
    let names: String = options.iter().map(quoted).collect();
    format!(
        "/** Written by `cargo xtask gen` from the table of options and the counts in crates/dodo-ingestion. */

/** Options that the core defines. One that is absent comes from its environment variable. */
export interface Options {{
{members}}}

/** Counts of what has happened so far. */
export interface Stats {{
{stats}}}

/**
 * The names of the options.
 *
 * @internal
 */
export const OPTION_NAMES: readonly string[] = [
{names}];
",
        stats = stats(STATS),
    )
}

fn quoted(option: &OptionSpec) -> String {
    format!("  '{}',\n", camel(option.name))
}

fn member(option: &OptionSpec, all: &[OptionSpec]) -> String {
    let takes = match option.kind {
        OptionKind::Text | OptionKind::Secret => "string".to_owned(),
        OptionKind::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
            words.join(" | ")
        }
        OptionKind::Flag => "boolean".to_owned(),
        _ => "number".to_owned(),
    };
    let limits = match option.kind {
        OptionKind::Seconds { min, max } => {
            format!("\n   *\n   * Milliseconds, {} to {}.", min * 1000.0, max * 1000.0)
        }
        OptionKind::Count { min, max } => format!("\n   *\n   * {min} to {max}."),
        OptionKind::Bytes { min, max } => format!("\n   *\n   * Bytes, {min} to {max}."),
        _ => String::new(),
    };
    let doc = all
        .iter()
        .filter(|other| other.name.contains('_'))
        .fold(option.doc.to_owned(), |doc, other| doc.replace(other.name, &camel(other.name)));
    let name = camel(option.name);
    format!("  /**\n   * {doc}{limits}\n   */\n  {name}?: {takes} | undefined;\n")
}

/// The fields of a struct of counts, as it is written in Rust.
fn stats(source: &str) -> String {
    let body = source.split_once("pub struct Stats {").map_or("", |(_, rest)| rest);
    let body = body.split_once("\n}").map_or(body, |(fields, _)| fields);
    let mut members = Vec::new();
    let mut doc = Vec::new();
    for line in body.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("///") {
            doc.push(words.trim());
        } else if let Some(field) =
            line.strip_prefix("pub ").and_then(|line| line.strip_suffix(": u64,"))
        {
            let words = doc.join(" ");
            doc.clear();
            members.push(format!("  /** {words} */\n  readonly {}: number;\n", camel(field)));
        }
    }
    members.concat()
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |all, word| {
        let mut letters = word.chars();
        let initial = letters.next().map(|letter| letter.to_ascii_uppercase());
        all + &initial.into_iter().chain(letters).collect::<String>()
    })
}
