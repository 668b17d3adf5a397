//! The process backend: the suite for all backends, and what only real processes can do wrong.

mod ending;
pub(crate) mod fixture;
mod freezing;
mod overhead;
mod start;

use fixture::ProcessFixture;

mod conformance {
    use super::ProcessFixture;

    glowplug_runner::conformance_tests!(ProcessFixture::new());
}
