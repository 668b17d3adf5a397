//! A builder that is killed at any moment leaves nothing broken behind.
//!
//! The test needs a second process that builds, so the binary has no test harness: called with `build`, it
//! is that process.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]
#![expect(clippy::print_stdout, reason = "without a harness, the test talks to its runner itself")]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use glowplug_artifacts::{EnvironmentSpec, Environments, ProgressSender};

const NAME: &str = "a_killed_builder_leaves_nothing_broken";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if let [mode, data] = arguments.as_slice()
        && mode == "build"
    {
        build(Path::new(data));
    } else if has("--list") {
        // What nextest asks of a binary; none of its tests is ignored.
        if !has("--ignored") {
            println!("{NAME}: test");
        }
    } else {
        kill_and_build_again();
        println!("test {NAME} ... ok");
    }
}

fn build(data: &Path) -> std::path::PathBuf {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let environments = Environments::new(data);
        let python = environments.default_python(&ProgressSender::none()).await.unwrap();
        let layers = vec![vec!["six==1.17.0".to_owned()], vec!["numpy".to_owned()]];
        let spec = EnvironmentSpec { python, layers, local_projects: Vec::new() };
        environments.ensure(&spec, &ProgressSender::none()).await.unwrap().site_packages
    })
}

fn kill_and_build_again() {
    let data = support::data_dir_with_tools();
    // At the virtual environment, and in the middle of the second layer.
    for stage in ["pyvenv.cfg", ".glowplug-requirements-1.txt"] {
        #[expect(clippy::disallowed_methods, reason = "the test is about this second process")]
        let mut builder = Command::new(std::env::current_exe().unwrap())
            .arg("build")
            .arg(data.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        support::wait_for(stage, || {
            let listed = Environments::new(data.path()).list().unwrap();
            listed.into_iter().find(|found| found.path.join(stage).exists())
        });
        builder.kill().unwrap();
        assert_eq!(builder.wait().unwrap().signal(), Some(9), "it had finished before");
        let listed = Environments::new(data.path()).list().unwrap();
        assert!(listed.iter().all(|found| found.spec.is_none()), "{listed:?}");
    }
    let site_packages = build(data.path());
    assert!(site_packages.join("six.py").is_file());
    assert!(site_packages.join("numpy/__init__.py").is_file());
    let listed = Environments::new(data.path()).list().unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].spec.is_some());
}
