//! What is random in one runner is so in every other, though they were one process until they were forked.

use std::collections::BTreeSet;

use super::scene::start;

const RUNNERS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_forks_at_once_never_repeat_each_other() {
    let scene = start("Chance", "", "", &[]);
    scene.call("/").await;
    scene.wait_for_zygote();
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    let mut count = 0;
    scene.end_runners().await;
    let calls = (0..RUNNERS).map(|_| scene.call("/chance"));
    for drawn in futures::future::join_all(calls).await {
        for (kind, value) in drawn.as_object().unwrap() {
            count += 1;
            assert!(
                seen.insert((kind.clone(), value.to_string())),
                "{kind} was drawn before: {value}"
            );
        }
    }
    assert_eq!(seen.len(), count);
    assert!(count >= 7 * RUNNERS);
    let said = scene.cli(&["why", "local/app"]);
    assert!(said.contains(&format!("{RUNNERS} so far")), "not all were forked: {said}");
    scene.end().await;
}
