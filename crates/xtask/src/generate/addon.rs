//! `node/src/native.d.ts`: the addon's functions, as its macros have seen them in the build.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::workspace::Workspace;

/// Where `bindings/napi/build.rs` lets the macros write: a line of JSON for each function.
const FOLDER: &str = "napi";

const HEAD: &str = "\
/** What the addon exports. Written by `cargo xtask gen`, from the functions of `bindings/napi`. */

declare const brand: unique symbol;

/** A value that only the addon can look into. */
export interface Handle<Name extends string> {
  readonly [brand]: Name;
}

";

pub(super) fn declarations(workspace: &Workspace) -> Result<String> {
    let path = workspace.built().join(FOLDER).join("dodo-ingestion-napi");
    let lines = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    declare(&lines)
}

fn declare(lines: &str) -> Result<String> {
    // By name: a compiler that is kept running, as an editor's, appends to what was there.
    let mut functions = BTreeMap::new();
    for line in lines.lines() {
        let function: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let text =
            |field: &str| function[field].as_str().with_context(|| format!("{field}: {line}"));
        ensure!(text("kind")? == "fn", "only functions are exported: {line}");
        let signature = text("def")?.strip_prefix("function ").context("a function")?;
        let documentation: String =
            text("js_doc")?.lines().flat_map(|line| ["  ", line, "\n"]).collect();
        let member = format!("{documentation}  {};\n", opaque(signature));
        functions.insert(text("name")?.to_owned(), member);
    }
    let members: String = functions.into_values().collect();
    Ok(format!("{HEAD}export interface Native {{\n{members}}}\n"))
}

/// With the Rust type in a handle, which TypeScript does not know, as a mere name.
fn opaque(signature: &str) -> String {
    let mut parts = signature.split("ExternalObject<");
    let head = parts.next().unwrap_or_default().to_owned();
    parts.fold(head, |all, part| match part.split_once('>') {
        Some((name, rest)) => format!("{all}Handle<'{name}'>{rest}"),
        None => all + part,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_becomes_a_member_with_its_documentation() {
        let lines = concat!(
            r#"{"kind": "fn", "name": "poll", "js_doc": "/** Once more. */\n", "#,
            r#""def": "function poll(pending: ExternalObject<Pending>, n: number): ExternalObject<Batch>"}"#,
            "\n",
        );
        let members = "  /** Once more. */\n  poll(pending: Handle<'Pending'>, n: number): Handle<'Batch'>;\n";
        let expected = format!("{HEAD}export interface Native {{\n{members}}}\n");
        assert_eq!(declare(lines).unwrap(), expected);
        assert_eq!(declare(&lines.repeat(2)).unwrap(), expected);
    }

    #[test]
    fn what_is_no_function_is_refused() {
        let line = r#"{"kind": "struct", "name": "X", "js_doc": "", "def": "x"}"#;
        assert!(declare(line).unwrap_err().to_string().contains("only functions"));
    }
}
