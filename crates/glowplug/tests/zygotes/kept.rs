//! What imports leave in a process: a forked runner finds it as a plain one does, or is not forked.

use futures::future::join_all;

use super::scene::{FORKED, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_forked_runner_finds_what_imports_have_left() {
    let settings = "env = { KEEPS = 'what can be kept', DROPPED = 'yes' }";
    let scene = start("Keeps", "", settings, &[]);
    let plain = scene.call("/kept").await;
    assert_eq!(plain["marked"], "by an import");
    assert_eq!(plain["cwd"], "/");
    assert!(plain["dropped"].is_null());
    scene.wait_for_zygote();
    // Twice: what one has read of a file, and drawn of a generator, is not missing for the next.
    for _ in 0..2 {
        let (runner, forked) = scene.start_anew("/kept").await;
        scene.wait_for_why(&runner, FORKED);
        assert_eq!(forked, plain);
    }
    scene.end().await;
}

/// What two processes must not share, and what is said of it.
const UNSHAREABLE: [(&str, &str); 5] = [
    ("lock", "it shares memory"),
    ("pipe", "it holds a pipe open"),
    ("pidfd", "it holds"),
    ("temporary folder", "it keeps a temporary file"),
    ("temporary file", "it keeps a temporary file"),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_keeps_what_cannot_be_shared_starts_plainly() {
    join_all(UNSHAREABLE.map(|(keeps, said)| async move {
        let scene = start("Keeps", "", &format!("env = {{ KEEPS = '{keeps}' }}"), &[]);
        assert_eq!(scene.call("/").await["keeps"], keeps);
        scene.wait_for_why("local/app", said);
        scene.end().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_setup_prepares_before_its_imports_is_there_when_they_are_made() {
    let scene = start("Prepares", "", "", &[]);
    let plain = scene.call("/").await;
    assert_eq!(plain["way"], "prepared");
    scene.wait_for_zygote();
    let (runner, forked) = scene.start_anew("/").await;
    scene.wait_for_why(&runner, FORKED);
    assert_eq!(forked, plain);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_does_not_live_as_a_fork_starts_plainly_from_then_on() {
    join_all(["raises", "hangs"].map(check_shy)).await;
}

async fn check_shy(shy: &str) {
    let settings = format!("env = {{ SHY = '{shy}' }}\nstartup_timeout = 20");
    let scene = start("Shy", "", &settings, &[]);
    scene.call("/").await;
    scene.wait_for_zygote();
    scene.end_runners().await;
    let (status, answer) = scene.try_call("/").await;
    assert!(status >= 500, "{shy}: {answer}");
    scene.wait_for_why("local/app", "a runner that was forked from it did not become ready");
    let (runner, answer) = scene.start_anew("/").await;
    assert_eq!(answer["works"], true, "{shy}");
    assert!(!scene.cli(&["why", &runner]).contains(FORKED), "{shy}");
    scene.end().await;
}
