//! Apps that cannot be forked start as they always did, and it is told why.

use super::scene::{FORKED, start};

#[tokio::test(flavor = "multi_thread")]
async fn an_app_with_threads_starts_plainly_and_says_why() {
    let scene = start("Threads", "", "", &[]);
    assert_eq!(scene.call("/").await["worker"], true);
    scene.wait_for_why("local/app", "it has 2 threads before `setup()`");
    let (runner, answer) = scene.start_anew("/").await;
    assert_eq!(answer["worker"], true);
    assert!(!scene.cli(&["why", &runner]).contains(FORKED));
    assert_eq!(scene.zygotes(), Vec::<u32>::new());
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_setup_imports_and_cannot_be_shared_is_left_to_each_runner() {
    let scene = start("LateThreads", "", "", &[]);
    let plain = scene.call("/").await;
    scene.wait_for_zygote();
    let (runner, forked) = scene.start_anew("/").await;
    scene.wait_for_why(&runner, FORKED);
    assert_eq!((&forked, &forked["worker"]), (&plain, &true.into()));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_setup_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("breaks");
    let settings = format!("env = {{ BREAKS = '{}' }}", flag.display());
    let mut scene = start("Broken", "", &settings, &[]);
    scene.call("/").await;
    scene.wait_for_zygote();
    scene.end_runners().await;
    std::fs::write(&flag, "").unwrap();
    let (status, forked) = scene.try_call("/").await;
    assert!(status >= 500 && forked.contains("setup failed"), "{status}: {forked}");
    let said = scene.cli(&["why", "local/app"]);
    assert!(!said.contains(" 0 so far"), "it was not forked: {said}");
    assert_eq!(scene.served.stop(), Some(0));
    scene.assert_nothing_left();

    let plain_scene = start("Broken", "", &format!("{settings}\nzygote = 'off'"), &[]);
    let (again, plain) = plain_scene.try_call("/").await;
    assert_eq!((again, mask(&plain)), (status, mask(&forked)));
}

/// Runners are told by their numbers, which differ.
fn mask(answer: &str) -> String {
    answer
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect::<String>()
        .replace("00", "0")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_beyond_the_memory_for_zygotes() {
    let scene = start("Chance", "[node.warmth]\nzygote_memory_max = '1MiB'", "", &[]);
    let plain = scene.call("/").await;
    scene.wait_for_why("local/app", "`zygote_memory_max`");
    glowplug_testkit::wait_until("it is gone", super::scene::SOON, || {
        scene.zygotes().is_empty().then_some(())
    });
    let (runner, again) = scene.start_anew("/").await;
    assert_eq!(again, plain);
    assert!(!scene.cli(&["why", &runner]).contains(FORKED));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_without_zygotes_has_none() {
    let scene = start("Chance", "", "zygote = 'off'", &[]);
    scene.call("/").await;
    scene.start_anew("/").await;
    assert!(!scene.cli(&["why", "local/app"]).contains("zygote"));
    assert_eq!(scene.zygotes(), Vec::<u32>::new());
    scene.end().await;
}
