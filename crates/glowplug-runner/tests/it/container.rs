//! Runners in containers: the suite for all backends, and what containers must withstand.

use crate::process::fixture::ProcessFixture;

mod conformance {
    use super::ProcessFixture;

    glowplug_runner::conformance_tests!(ProcessFixture::of_containers());
}
