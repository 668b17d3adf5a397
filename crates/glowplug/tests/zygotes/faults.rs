//! A zygote that does not do what it should costs a start some time, and nothing else.

use futures::future::join_all;

use super::scene::{FORKED, start_with_zygote};

const FAULTS: [&str; 6] =
    ["dies", "closes", "babbles", "names another", "says nothing", "runner dies"];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_zygote_does_wrong_the_app_starts_plainly() {
    join_all(FAULTS.map(check)).await;
}

async fn check(fault: &str) {
    let settings = "env = { GREETING = 'hello' }";
    let scene = start_with_zygote(&format!("'zygote', '{fault}'"), settings);
    scene.call("/").await;
    scene.wait_for_zygote();
    let (runner, answer) = scene.start_anew("/").await;
    assert_eq!(answer["greeting"], "hello", "{fault}");
    assert_eq!(answer["loaded_by"], answer["pid"], "{fault}");
    assert!(!scene.cli(&["why", &runner]).contains(FORKED), "{fault}");
    let log = scene.cli(&["runners", "logs", &runner]);
    assert!(log.contains("starting plainly"), "{fault}: {log}");
    scene.end().await;
}
