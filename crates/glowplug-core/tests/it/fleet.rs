//! Nodes and apps for scenarios.

use std::time::Duration;

use glowplug_core::engine::Config;
use glowplug_core::ids::AppId;
use glowplug_core::request::Mode;
use glowplug_core::resources::{Capacity, Gpu, MachineType};
use glowplug_core::retry::Rules;
use glowplug_core::spec::{AppSpec, Scaling};

use proptest::test_runner::{Config as ProptestConfig, FileFailurePersistence};

use crate::world::{Behaviour, World};

pub(crate) const A: AppId = AppId(1);
pub(crate) const B: AppId = AppId(2);
pub(crate) const C: AppId = AppId(3);

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A node with room for `slots` runners of [`spec`], each with a GPU of its own.
pub(crate) fn node(slots: u32) -> World {
    World::new(capacity(slots), Config::default())
}

pub(crate) fn capacity(slots: u32) -> Capacity {
    let gpu = |index| Gpu { index, kind: "L40".into(), memory_bytes: 48 << 30 };
    Capacity {
        cpu_millis: u64::from(slots) * 1_000,
        memory_bytes: u64::from(slots) << 30,
        gpus: (0..slots).map(gpu).collect(),
    }
}

/// One slot of a [`node`].
pub(crate) fn slot() -> MachineType {
    slots(1)
}

pub(crate) fn slots(slots: u32) -> MachineType {
    MachineType {
        name: format!("{slots} slot"),
        cpu_millis: u64::from(slots) * 1_000,
        memory_bytes: u64::from(slots) << 30,
        gpus: slots,
        ..MachineType::default()
    }
}

pub(crate) fn spec(app: AppId, scaling: Scaling) -> AppSpec {
    let name = match app {
        A => "a".into(),
        B => "b".into(),
        C => "c".into(),
        AppId(other) => format!("app{other}"),
    };
    AppSpec { name, revision: 1, scaling, machine_types: vec![slot()], retry: Rules::default() }
}

/// Settings of a property test: 256 cases or `PROPTEST_CASES`; what failed once is tried first.
pub(crate) fn cases(name: &str) -> ProptestConfig {
    let file = format!("{}/tests/it/regressions/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let persistence = FileFailurePersistence::Direct(file.leak());
    ProptestConfig { failure_persistence: Some(Box::new(persistence)), ..ProptestConfig::default() }
}

impl World {
    /// Deploys an app that takes one slot, is ready after 2 s and answers after 1 s.
    pub(crate) fn add(&mut self, app: AppId, scaling: Scaling) {
        self.deploy(app, spec(app, scaling), Behaviour::default());
    }

    pub(crate) fn behave(&mut self, app: AppId, behaviour: Behaviour) {
        self.behaviours.insert(app, behaviour);
    }

    /// Lets time pass while at least `waiting` requests wait for each of these apps.
    pub(crate) fn run_saturated(&mut self, span: Duration, apps: &[AppId], waiting: usize) {
        let end = self.now + span;
        while self.now < end {
            for app in apps {
                for _ in self.engine.waiting(*app).len()..waiting {
                    self.arrive(*app, Mode::Queued);
                }
            }
            self.run_until(end.min(self.now + secs(5)));
        }
    }

    /// Checks the decisions since the last look, word by word.
    #[track_caller]
    pub(crate) fn expect_story(&mut self, expected: &str) {
        let story = self.story();
        assert!(
            story.trim() == expected.trim(),
            "the story is\n<<<\n{story}>>>\nand not\n{expected}"
        );
    }

    #[track_caller]
    pub(crate) fn expect_states(&self, app: AppId, expected: &str) {
        assert_eq!(self.states(app), expected, "at {:?}", self.now);
    }
}
