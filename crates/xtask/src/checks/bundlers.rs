//! The Node package as programs have it: in test runners, in bundles, in Next.js, and on other versions of Node.

use super::node::{npm, npm_ci};
use super::{Job, Lane, Part, Step};
use crate::system::{self, Requirement};
use crate::tally::Runner;

use anyhow::Result;

pub(super) const PART: Part = Part {
    name: "bundlers",
    manifest: "tests/bundlers/package.json",
    requires: &[Requirement::Compiler, Requirement::Node],
    steps: &[
        Step {
            id: "bundlers/setup",
            about: "npm ci",
            needs: &[],
            lane: Lane::Tools,
            runner: None,
            run: |job| npm_ci(job, "tests/bundlers"),
        },
        Step {
            id: "bundlers/test",
            about: "Jest, Vitest, esbuild, webpack, Next.js and tsx, each with the package installed",
            needs: &["bundlers/setup", "node/build", "node/addon"],
            lane: Lane::Tools,
            runner: Some(Runner::Node),
            run: |job| npm(job, "tests/bundlers", "test"),
        },
        Step {
            id: "bundlers/node22",
            about: "what the addon asks of Node, on Node 22",
            needs: &["node/build", "node/addon"],
            lane: Lane::Tools,
            runner: Some(Runner::Node),
            run: |job| on(job, system::NODE),
        },
        Step {
            id: "bundlers/node24",
            about: "the same on Node 24",
            needs: &["node/build", "node/addon"],
            lane: Lane::Tools,
            runner: Some(Runner::Node),
            run: |job| on(job, "24.9.0"),
        },
    ],
};

/// The tests in which the package meets Node itself: loading, ends of processes and of threads, waits, servers, the README.
const TESTS: &[&str] = &[
    "abort",
    "errors",
    "handles",
    "hosts",
    "lifecycle",
    "meter",
    "readme",
    "vectors",
    "verbs",
    "web/express",
    "web/fastify",
    "web/hono",
    "web/http",
    "web/koa",
    "web/next",
    "web/upgrades",
    "workers",
];

/// Runs them on a version of Node, which npm brings.
fn on(job: &mut Job<'_>, version: &str) -> Result<()> {
    let directory = job.workspace.cache(&format!("node-{version}"));
    let program = directory.join("node_modules/node/bin/node");
    if !program.exists() {
        system::npm_install_node(job.workspace, job.log, version, &directory)?;
    }
    let mut command = job.command(program, "node")?;
    command
        .args(["--test", "--test-concurrency=3"])
        .args(TESTS.iter().map(|name| format!("test/{name}.test.mjs")));
    job.run(command)
}
