//! The scenarios that regressions come from, each with several seeds.

use std::path::{Path, PathBuf};

use glowplug_sim::scenario::Scenario;

const SEEDS: std::ops::RangeInclusive<u64> = 1..=3;

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios")
}

/// Fails with everything that is not as expected, and with what to type to see it again.
fn check(name: &str) {
    let path = dir().join(format!("{name}.toml"));
    let scenario = Scenario::read(&path).unwrap();
    for seed in SEEDS {
        let replay = format!("glowplug simulate scenarios/{name}.toml --seed {seed}");
        let outcome = scenario
            .world(seed)
            .run(scenario.traffic(seed))
            .unwrap_or_else(|failure| panic!("{failure}\n  {replay}"));
        let unmet = scenario.unmet(&outcome);
        assert!(unmet.is_empty(), "{unmet:#?}\n  {replay}");
    }
}

macro_rules! scenarios {
    ($($function:ident $name:literal)*) => {
        $(#[test]
        fn $function() {
            check($name);
        })*

        /// What has a file has a test.
        #[test]
        fn none_is_left_out() {
            let mut files: Vec<String> = std::fs::read_dir(dir())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
                .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
                .collect();
            files.sort();
            assert_eq!(files, [$($name),*]);
        }
    };
}

scenarios! {
    burst "burst"
    contended_gpus "contended-gpus"
    crash_loop "crash-loop"
    daily_cycle "daily-cycle"
    flash_crowd "flash-crowd"
    slow_boil "slow-boil"
    steady "steady"
    thundering_herd "thundering-herd"
    untidy_reports "untidy-reports"
}

#[test]
fn the_same_seed_takes_the_same_course() {
    let scenario = Scenario::read(&dir().join("untidy-reports.toml")).unwrap();
    let world = scenario.world(4);
    let outcome = world.doublecheck(|| scenario.traffic(4)).unwrap();
    let again = world.run(scenario.traffic(4)).unwrap();
    assert_eq!(outcome.digest, again.digest);
    let other = scenario.world(5).run(scenario.traffic(5)).unwrap();
    assert_ne!(outcome.digest, other.digest);
}
