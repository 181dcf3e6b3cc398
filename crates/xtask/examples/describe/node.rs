//! `node/src/options.ts`: the options and the counts of a client as TypeScript has them.

use dodo_ingestion::{DEFAULT_FLUSH_TIMEOUT, OptionKind, OptionSpec, Stats, limits};

pub(crate) fn options(options: &[OptionSpec]) -> String {
    let members: String = options.iter().map(|option| member(option, options)).collect();
    let names: String = options.iter().map(quoted).collect();
    let counts: String = Stats::COUNTS.iter().map(count).collect();
    format!(
        "/** Written by `cargo xtask gen` from the table of options, the counts and the limits in crates/dodo-ingestion. */

/** Options that the core defines. One that is absent comes from its environment variable. */
export interface Options {{
{members}}}

/** Counts of what has happened so far. */
export interface Stats {{
{counts}}}

/**
 * The names of the options.
 *
 * @internal
 */
export const OPTION_NAMES: readonly string[] = [
{names}];

/**
 * Milliseconds for which the core waits where nobody says how long.
 *
 * @internal
 */
export const DEFAULT_TIMEOUT = {timeout};

/**
 * The most characters of an event's name and of a customer's id.
 *
 * @internal
 */
export const IDENTIFIER_CHARACTERS = {identifier};

/**
 * The billing API's limits of an event's metadata.
 *
 * @internal
 */
export const METADATA = {{ keyCharacters: {key}, pairs: {pairs}, valueCharacters: {value} }};
",
        timeout = DEFAULT_FLUSH_TIMEOUT.as_millis(),
        identifier = limits::IDENTIFIER_CHARS,
        key = limits::METADATA_KEY_CHARS,
        pairs = limits::METADATA_PAIRS,
        value = limits::METADATA_VALUE_CHARS,
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

fn count((name, doc): &(&str, &str)) -> String {
    format!("  /** {} */\n  readonly {}: number;\n", doc.trim(), camel(name))
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
