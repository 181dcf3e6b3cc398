//! The command line as a whole: help, completions, colours, exit statuses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Stdio};

/// The exit status and both outputs, without what the environment says about colours.
fn dodometer(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dodometer"));
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "RUST_LOG"] {
        command.env_remove(name);
    }
    let output = command
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn it_says_its_version() {
    let (status, stdout, _) = dodometer(&["--version"], &[]);
    let version = format!("dodometer {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((status, stdout), (Some(0), version));
}

#[test]
fn every_help_says_the_exit_statuses() {
    for arguments in [&["--help"][..], &["serve", "-h"], &["demo", "-h"], &["completions", "-h"]] {
        let (status, stdout, _) = dodometer(arguments, &[]);
        assert_eq!(status, Some(0));
        let unwrapped = stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        let (_, statuses) = unwrapped.split_once("Exit status: 0 when ").unwrap();
        assert!(statuses.contains("1 when ") && statuses.contains("2 when "), "{stdout}");
    }
}

#[test]
fn a_help_refers_to_what_its_reader_has() {
    let (_, stdout, _) = dodometer(&["serve", "--help"], &[]);
    assert!(stdout.contains("https://github.com/") && !stdout.contains(" docs/"), "{stdout}");
    assert!(stdout.contains("DODOMETER_KEYS"), "{stdout}");
}

#[test]
fn wrong_arguments_are_told_apart_from_failures() {
    for arguments in [&[][..], &["no-such-command"], &["serve", "--no-such-option"]] {
        let (status, stdout, stderr) = dodometer(arguments, &[]);
        assert_eq!((status, stdout.is_empty()), (Some(2), true), "{stderr}");
    }
    let (status, _, stderr) = dodometer(&["serve", "--customers", "no/such/file"], &[]);
    assert_eq!(status, Some(1), "{stderr}");
}

#[test]
fn wrong_arguments_of_serve_are_told_apart_from_failures() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = folder.path().join("nobody.txt");
    std::fs::write(&nobody, "\n").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap().to_string();
    let many_faults = ["--fault", "hang"].repeat(101);
    for (arguments, expected, told) in [
        (&["--listen", "0.0.0.0:0"][..], 2, "give at least one --key"),
        (&["--key", ""], 2, "--key: an API key must not be empty"),
        (&["--key", "k", "--key", "secr\u{e9}t"], 2, "--key: an API key must be of visible ASCII"),
        (&["--key", "", "--listen", &busy], 2, "--key: an API key must not be empty"),
        (&["--max-body-bytes", "0"], 2, "--max-body-bytes"),
        (&["--customers", ""], 2, "--customers"),
        (&["--customers", ", ,"], 2, "names no customer"),
        (&["--data", ""], 2, "--data"),
        (&many_faults, 2, "too many faults"),
        (&["--listen", &busy], 1, "cannot listen on"),
        (&["--customers", nobody.to_str().unwrap()], 1, "names no customer"),
        (&["--data", folder.path().to_str().unwrap()], 1, "cannot be opened for writing"),
    ] {
        let arguments = [&["serve"], arguments].concat();
        let (status, stdout, stderr) = dodometer(&arguments, &[("DODOMETER_KEYS", "")]);
        assert_eq!((status, stdout.as_str()), (Some(expected), ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(told) && !stderr.contains("secr"), "{arguments:?}: {stderr}");
    }
    let keys = [("DODOMETER_KEYS", "k,secr\u{e9}t")];
    let (status, _, stderr) = dodometer(&["serve", "--listen", "127.0.0.1:0"], &keys);
    assert_eq!(status, Some(2), "{stderr}");
    assert!(stderr.contains("DODOMETER_KEYS: an API key") && !stderr.contains("secr"), "{stderr}");
}

#[test]
fn each_shell_has_its_completions() {
    for (shell, words) in [
        ("bash", "complete -F _dodometer"),
        ("zsh", "#compdef dodometer"),
        ("fish", "complete -c dodometer"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion"),
    ] {
        let (status, stdout, _) = dodometer(&["completions", shell], &[]);
        assert_eq!(status, Some(0), "{shell}");
        assert!(stdout.contains(words) && stdout.contains("listen"), "{shell}: {stdout}");
    }
}

#[test]
fn colours_are_written_where_they_are_wanted() {
    let demo = ["demo", "--seconds", "1", "--rate", "5"];
    let always = [&demo[..], &["--color", "always"]].concat();
    for (arguments, environment, wanted) in [
        (&demo[..], &[][..], false),
        (&demo, &[("CLICOLOR_FORCE", "1")], true),
        (&demo, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
        (&always, &[("NO_COLOR", "1")], true),
    ] {
        let (status, stdout, stderr) = dodometer(arguments, environment);
        assert_eq!(status, Some(0), "{stderr}");
        assert_eq!(stdout.contains("\u{1b}[32m"), wanted, "{environment:?}: {stdout}");
    }
}
