//! Building real environments: once, atomically, and with readable errors.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

mod support;

use std::fs;
use std::path::Path;

use glowplug_artifacts::{EnvironmentError, EnvironmentSpec, Environments, ProgressSender, Stage};

async fn spec(environments: &Environments, layers: &[&[&str]]) -> EnvironmentSpec {
    let python = environments.default_python(&ProgressSender::none()).await.unwrap();
    let layers = layers.iter().map(|l| l.iter().map(|&r| r.to_owned()).collect()).collect();
    EnvironmentSpec { python, layers, local_projects: Vec::new() }
}

fn inode_time(path: &Path) -> std::time::SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

#[tokio::test]
async fn many_callers_build_once() {
    let data = support::data_dir_with_tools();
    let environments = Environments::new(data.path());
    let spec = spec(&environments, &[&["six==1.17.0"]]).await;
    // Separate values, as separate processes have them: only the file lock is between them.
    let builders = (0..4).map(|_| {
        let (spec, environments) = (spec.clone(), Environments::new(data.path()));
        tokio::spawn(async move {
            let (sender, mut receiver) = ProgressSender::channel();
            let found = environments.ensure(&spec, &sender).await.unwrap();
            assert_eq!(receiver.borrow_and_update().stage, Stage::Done);
            found
        })
    });
    let mut found = Vec::new();
    for builder in builders.collect::<Vec<_>>() {
        found.push(builder.await.unwrap());
    }
    assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{found:?}");
    let environment = &found[0];
    assert!(environment.site_packages.join("six.py").is_file());
    assert!(environment.site_packages.join("__pycache__").is_dir(), "no bytecode");
    let marker = inode_time(&environment.path.join(".glowplug-complete.json"));

    let again = environments.ensure(&spec, &ProgressSender::none()).await.unwrap();
    assert_eq!(inode_time(&again.path.join(".glowplug-complete.json")), marker, "built twice");

    let listed = environments.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].id, listed[0].spec.as_ref()), (&environment.id, Some(&spec)));
    assert!(listed[0].last_used_secs.is_some());
    environments.remove(&environment.id).await.unwrap();
    assert_eq!(environments.list().unwrap(), []);
    let error = environments.remove(&environment.id).await.unwrap_err();
    assert!(matches!(error, EnvironmentError::Unknown { .. }), "{error}");
}

#[tokio::test]
async fn later_layers_are_installed_over_earlier_ones() {
    let data = support::data_dir_with_tools();
    let environments = Environments::new(data.path());
    let spec = spec(&environments, &[&["six==1.16.0"], &["six==1.17.0"]]).await;
    let found = environments.ensure(&spec, &ProgressSender::none()).await.unwrap();
    let text = fs::read_to_string(found.site_packages.join("six.py")).unwrap();
    assert!(text.contains(r#"__version__ = "1.17.0""#));
}

#[tokio::test]
async fn requirements_that_do_not_exist_are_named_and_leave_nothing() {
    let data = support::data_dir_with_tools();
    let environments = Environments::new(data.path());
    let spec = spec(&environments, &[&["six==0.0.0.dev1"]]).await;
    let error = environments.ensure(&spec, &ProgressSender::none()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, EnvironmentError::Install { .. }), "{text}");
    assert!(text.contains("six==0.0.0.dev1"), "{text}");
    assert_eq!(environments.list().unwrap(), []);
}

#[tokio::test]
async fn half_built_environments_are_built_again() {
    let data = support::data_dir_with_tools();
    let environments = Environments::new(data.path());
    let spec = spec(&environments, &[&["six==1.17.0"]]).await;
    let found = environments.ensure(&spec, &ProgressSender::none()).await.unwrap();
    fs::remove_file(found.path.join(".glowplug-complete.json")).unwrap();
    fs::remove_file(found.site_packages.join("six.py")).unwrap();
    assert_eq!(environments.list().unwrap()[0].spec, None);
    let again = environments.ensure(&spec, &ProgressSender::none()).await.unwrap();
    assert_eq!(again, found);
    assert!(again.site_packages.join("six.py").is_file());
}

#[tokio::test]
async fn an_environment_whose_interpreter_went_away_is_built_again() {
    let data = support::data_dir_with_tools();
    let environments = Environments::new(data.path());
    let spec = spec(&environments, &[&["six==1.17.0"]]).await;
    let found = environments.ensure(&spec, &ProgressSender::none()).await.unwrap();
    fs::remove_file(&found.python).unwrap();
    std::os::unix::fs::symlink("/nowhere/python3", &found.python).unwrap();
    let again = environments.ensure(&spec, &ProgressSender::none()).await.unwrap();
    assert!(again.python.exists());
}
