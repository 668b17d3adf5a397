//! Runners in containers: the suite for all backends, and what containers must withstand.

/// Makes a test of each function for each runtime that is held to the same as the native one.
macro_rules! on_each_runtime {
    ($($name:ident)*) => {
        $(mod $name {
            #[tokio::test]
            async fn native() {
                super::$name("native").await;
            }

            #[tokio::test]
            async fn runc() {
                super::$name("runc").await;
            }

            #[tokio::test]
            async fn crun() {
                super::$name("crun").await;
            }
        })*
    };
}

mod escape;
mod gpus;
mod limits;
mod overhead;
mod touched;
mod world;

use crate::process::fixture::ProcessFixture;

macro_rules! conformance {
    ($($name:ident $runtime:literal)*) => {
        $(mod $name {
            use super::ProcessFixture;

            glowplug_runner::conformance_tests!(ProcessFixture::of_containers_by($runtime));
        })*
    };
}

conformance! { conformance "native" runc "runc" crun "crun" }
