//! The live page of the local meter, in a real Chromium.

use super::node::{npm, npm_ci};
use super::{Lane, Part, Step};
use crate::system::Requirement;
use crate::tally::Runner;

pub(super) const PART: Part = Part {
    name: "page",
    manifest: "tests/page/package.json",
    requires: &[Requirement::Node, Requirement::Chromium],
    steps: &[
        Step {
            id: "page/setup",
            about: "npm ci",
            needs: &[],
            lane: Lane::Tools,
            runner: None,
            run: |job| npm_ci(job, "tests/page"),
        },
        Step {
            id: "page/lint",
            about: "biome, on the page and on its tests",
            needs: &["page/setup"],
            lane: Lane::Tools,
            runner: None,
            run: |job| npm(job, "tests/page", "lint"),
        },
        Step {
            id: "page/test",
            about: "the page of a real meter in a real browser",
            needs: &["page/setup", "rust/build"],
            lane: Lane::Tools,
            runner: Some(Runner::Node),
            run: |job| npm(job, "tests/page", "test"),
        },
    ],
};
