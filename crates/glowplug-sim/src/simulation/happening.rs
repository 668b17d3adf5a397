//! What a scenario lets happen beside its traffic.

use glowplug_core::Timestamp;
use glowplug_core::resources::Capacity;
use glowplug_core::spec::AppSpec;

use crate::model::Faults;

/// Something that happens once, at a moment that is known beforehand.
#[derive(Clone, Debug, PartialEq)]
pub struct Happening {
    pub at: Timestamp,
    pub what: What,
}

/// Apps are named by their index among those simulated.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a world has few of them")]
pub enum What {
    /// New settings, or new code if the revision is another: then the first start pulls again.
    Deploy {
        app: u32,
        spec: AppSpec,
    },
    Remove {
        app: u32,
    },
    /// Nodes or GPUs go or come back.
    Resize {
        capacity: Capacity,
    },
    /// From now on, things go wrong as often as this.
    Faults {
        app: u32,
        faults: Faults,
    },
    /// So many runners of the app die with what is on them, oldest first.
    Kill {
        app: u32,
        runners: u32,
    },
    /// Somebody asks for so many warm runners.
    Warm {
        app: u32,
        runners: u32,
    },
    ShutDown,
}
