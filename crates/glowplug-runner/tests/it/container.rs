//! Runners in containers: the suite for all backends, and what containers must withstand.

mod escape;
mod limits;
mod overhead;
mod touched;
mod world;

use crate::process::fixture::ProcessFixture;

mod conformance {
    use super::ProcessFixture;

    glowplug_runner::conformance_tests!(ProcessFixture::of_containers());
}
