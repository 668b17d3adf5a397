//! A start from a zygote is a start like any other, only sooner.

use super::scene::{FORKED, start};

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
