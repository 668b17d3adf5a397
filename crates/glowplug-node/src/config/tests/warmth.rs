//! What keeps apps warm.

use std::path::Path;
use std::time::Duration;

use super::super::{AppWarmth, SnapshotUse, ZygoteUse};
use super::{Scene, check_error};

#[test]
fn an_app_says_what_keeps_it_warm() {
    let check = |settings: &str, expected: AppWarmth| {
        let scene = Scene::new(&format!("[apps.hello]\ncommand = 'x'\n{settings}"));
        assert_eq!(scene.config().apps[0].warmth, expected, "{settings}");
    };
    let frozen_for = |frozen_for| AppWarmth { frozen_for, ..AppWarmth::default() };
    let zygote = |zygote| AppWarmth { zygote, ..AppWarmth::default() };
    let snapshot = |snapshot| AppWarmth { snapshot, ..AppWarmth::default() };
    check("", AppWarmth::default());
    check("zygote = 'auto'\nsnapshot = 'auto'\nfreeze = 'off'", AppWarmth::default());
    check("freeze = 'auto'", frozen_for(Duration::from_hours(1)));
    check("freeze = 'auto'\nfrozen_for = '5m'", frozen_for(Duration::from_mins(5)));
    check("frozen_for = '5m'", frozen_for(Duration::ZERO));
    check("zygote = 'off'", zygote(ZygoteUse::Off));
    let modules = ["numpy", "torch.nn"].map(str::to_owned).to_vec();
    check("zygote = ['numpy', 'torch.nn']", zygote(ZygoteUse::Declared(modules)));
    check("snapshot = 'off'", snapshot(SnapshotUse::Off));
    check("snapshot = 'required'", snapshot(SnapshotUse::Required));
}

#[test]
fn what_is_no_module_is_refused() {
    let help = "\n  help: write \"auto\", \"off\", or modules as in [\"numpy\", \"torch.nn\"]";
    for (value, wrong) in [("['numpy', 'off']", "off"), ("'a b'", "a b"), ("['a..b']", "a..b")] {
        check_error(
            &format!("[apps.hello]\ncommand = 'x'\nzygote = {value}"),
            &format!(
                "glowplug.toml:3: `zygote` in [apps.hello] has \"{wrong}\", which names no Python module{help}"
            ),
        );
    }
}

#[test]
fn a_node_bounds_what_is_kept_warm() {
    let warmth = Scene::new("").config().node.warmth;
    assert_eq!(
        (warmth.zygote_memory_max, warmth.snapshot_bytes_max, warmth.frozen_memory_max),
        (2 << 30, 20 << 30, 4 << 30)
    );
    assert_eq!(warmth.criu, None);
    let scene = Scene::new(
        "[node.warmth]\ncriu = 'bin/criu'\nzygote_memory_max = 0\nfrozen_memory_max = '1GiB'",
    );
    let warmth = scene.config().node.warmth;
    assert_eq!((warmth.zygote_memory_max, warmth.frozen_memory_max), (0, 1 << 30));
    assert!(warmth.criu.unwrap().ends_with(Path::new("bin/criu")));
}
