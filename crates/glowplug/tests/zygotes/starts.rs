//! A start from a zygote is a start like any other, only sooner.

use super::scene::{FORKED, start, start_command};

#[tokio::test(flavor = "multi_thread")]
async fn the_second_start_is_forked_and_answers_the_same() {
    let scene = start("Chance", "", "", &[]);
    let plain = scene.call("/").await;
    assert_eq!(plain["total"], 45.0);
    scene.wait_for_zygote();
    for _ in 0..3 {
        let (runner, forked) = scene.start_anew("/").await;
        assert_eq!(forked, plain);
        scene.wait_for_why(&runner, FORKED);
    }
    assert_eq!(scene.zygotes().len(), 1);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forked_runner_finds_the_same_surroundings() {
    let settings = "env = { GREETING = 'hello' }\nsecrets = { TOKEN = 'env:SHOP_TOKEN' }";
    let scene = start("Chance", "", settings, &[("SHOP_TOKEN", "s3cret")]);
    let plain = scene.call("/surroundings").await;
    assert_eq!(
        (&plain["env"]["GREETING"], &plain["token_at_setup"]),
        (&"hello".into(), &"s3cret".into())
    );
    scene.wait_for_zygote();
    let (runner, forked) = scene.start_anew("/surroundings").await;
    scene.wait_for_why(&runner, FORKED);
    assert_eq!(forked, plain);
    let log = scene.cli(&["runners", "logs", &runner]);
    assert!(log.contains("set up with hello"), "{log}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_forks_by_itself_is_asked_to() {
    let scene = start_command("env = { GREETING = 'hello' }");
    let plain = scene.call("/").await;
    assert_eq!(plain["loaded_by"], plain["pid"]);
    scene.wait_for_zygote();
    for _ in 0..2 {
        let (runner, forked) = scene.start_anew("/").await;
        scene.wait_for_why(&runner, FORKED);
        assert_eq!(forked["greeting"], plain["greeting"]);
        assert_ne!(forked["loaded_by"], forked["pid"], "another process has loaded it");
        assert_ne!(forked["pid"], plain["pid"]);
        assert!(scene.cli(&["runners", "logs", &runner]).contains("serving"));
    }
    let (runner, _) = scene.start_anew("/").await;
    let (status, _) = scene.try_call("/exit").await;
    assert!(status >= 500, "{status}");
    scene.wait_for_why(&runner, "exited with code 7");
    scene.end().await;
}
