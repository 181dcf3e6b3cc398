//! The Kotlin package, against the library that `rust/build` has built.

use super::{Lane, Part, Step};
use crate::system::{self, Requirement};
use crate::tally::Runner;

pub(super) const PART: Part = Part {
    name: "kotlin",
    manifest: "bindings/uniffi/kotlin/pom.xml",
    requires: &[Requirement::Compiler, Requirement::Jdk, Requirement::Maven],
    steps: &[Step {
        id: "kotlin/test",
        about: "mvn test",
        needs: &["rust/programs"],
        lane: Lane::Tools,
        runner: Some(Runner::Surefire),
        run: |job| {
            let mut command = job.command(system::script("mvn"), "bindings/uniffi/kotlin")?;
            command.args(["--batch-mode", "--no-transfer-progress", "test"]);
            for (property, path) in [
                ("maven.repo.local", job.workspace.cache("m2")),
                ("native.directory", job.workspace.built()),
            ] {
                let mut define = std::ffi::OsString::from(format!("-D{property}="));
                define.push(path);
                command.arg(define);
            }
            job.run(command)
        },
    }],
};
