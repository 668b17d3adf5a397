//! Two nodes on one queue: each speaks for the other, and does its work when it is gone.

use glowplug_testkit::eventually;
use reqwest::Method;

use super::ground::{Ground, SOON};

const WAITING: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn either_node_speaks_for_the_other() {
    let ground = Ground::start(2).await;
    let (here, there) = (ground.caller(0), ground.caller(1));
    let running = here.submit("/?seconds=3", "\"long\"").await;
    ground.wait_for_run(&running).await;
    let waiting = here.submit("/", "\"short\"").await;
    let unwanted = here.submit("/", "\"never\"").await;
    assert_eq!(there.state(&waiting).await, "IN_QUEUE");
    there.wait_for_state(&running, "IN_PROGRESS").await;
    let follow = {
        let (there, waiting) = (there.clone(), waiting.clone());
        tokio::spawn(async move { there.follow(&waiting).await })
    };
    assert_eq!(there.about(&unwanted, "/cancel").await.unwrap().status, 202);
    let answer = there.completed(&unwanted).await;
    assert_eq!(answer.error_type.as_deref(), Some("client_cancelled"), "{answer:?}");
    let answer = there.completed(&running).await;
    assert_eq!((answer.status, &answer.body["echo"]), (200, &"\"long\"".into()), "{answer:?}");
    let states = follow.await.unwrap();
    assert_eq!(
        (states.first().unwrap().as_str(), states.last().unwrap().as_str()),
        ("IN_QUEUE", "COMPLETED")
    );
    assert_eq!(there.about(&waiting, "").await.unwrap().body["echo"], "\"short\"");
    assert_eq!(ground.runs(&unwanted), 0);

    // One that runs is cancelled by the node that runs it.
    let running = here.submit("/?seconds=3", "\"endless\"").await;
    ground.wait_for_run(&running).await;
    assert_eq!(there.about(&running, "/cancel").await.unwrap().status, 202);
    eventually("its app is told", SOON, || async {
        ground.was_told_to_cancel(&running).then_some(())
    })
    .await;
    ground.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_through_one_node_holds_at_the_other() {
    let ground = Ground::start(2).await;
    let (here, there) = (ground.caller(0), ground.caller(1));
    let (app, patch) = ("/api/v1/apps/local/app", r#"{"max_concurrency": 3}"#);
    let changed = here.call(Method::PATCH, &format!("{app}/scaling"), &[], patch).await.unwrap();
    assert_eq!(changed.status, 200, "{changed:?}");
    eventually("the other scales so", SOON, || async {
        let seen = there.call(Method::GET, app, &[], "").await.unwrap();
        (seen.body["scaling"]["max_concurrency"] == 3).then_some(())
    })
    .await;

    // Without a key both serve everybody.
    assert_eq!(there.call(Method::GET, app, &[], "").await.unwrap().status, 200);
    let wanted = r#"{"alias": "a", "scope": "ADMIN"}"#;
    let key = here.call(Method::POST, "/api/v1/keys", &[], wanted).await.unwrap();
    let text = |name: &str| key.body[name].as_str().unwrap().to_owned();
    let header = format!("Key {}:{}", text("id"), text("secret"));
    let with_key = [("authorization", header.as_str())];
    eventually("the other wants the key", SOON, || async {
        let without = there.call(Method::GET, app, &[], "").await.unwrap().status;
        let with = there.call(Method::GET, app, &with_key, "").await.unwrap().status;
        ((without, with) == (401, 200)).then_some(())
    })
    .await;
    ground.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_a_killed_node_is_taken_over_and_done_once() {
    let mut ground = Ground::start(2).await;
    let (here, there) = (ground.caller(0), ground.caller(1));
    let path = format!("/{}&seconds=", ground.calls.query());
    let running = here.submit(&format!("{path}20"), "\"running\"").await;
    ground.wait_for_run(&running).await;
    let mut all = vec![(running.clone(), "\"running\"".to_owned())];
    for number in 0..WAITING {
        let body = number.to_string();
        all.push((here.submit(&format!("{path}0.1"), &body).await, body));
    }
    let cancelled = here.submit("/", "\"cancelled\"").await;
    let follow = {
        let (there, id) = (there.clone(), all[WAITING].0.clone());
        tokio::spawn(async move { there.follow(&id).await })
    };
    ground.nodes[0].kill();
    // Nobody is there to hear of it: whoever takes the request over does.
    assert_eq!(there.about(&cancelled, "/cancel").await.unwrap().status, 202);
    for (id, body) in &all {
        let answer = there.completed(id).await;
        assert_eq!((answer.status, &answer.body["echo"]), (200, &body.as_str().into()), "{id}");
        // One answer is every answer.
        for call in ground.calls.of(id).await {
            assert_eq!(call["payload"], answer.body, "{id}");
        }
        assert_eq!(ground.runs(id), if *id == running { 2 } else { 1 }, "{id}");
    }
    assert_eq!(follow.await.unwrap().last().unwrap(), "COMPLETED");
    let answer = there.completed(&cancelled).await;
    assert_eq!(answer.error_type.as_deref(), Some("client_cancelled"), "{answer:?}");
    assert_eq!(ground.runs(&cancelled), 0);

    ground.start_again(0);
    for (id, _) in &all {
        let both = [here.about(id, "").await.unwrap(), there.about(id, "").await.unwrap()];
        assert_eq!((both[0].status, &both[0].body), (200, &both[1].body), "{id}");
    }
    ground.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_out_for_longer_than_its_lease_changes_nothing_and_goes_on() {
    let ground = Ground::start(2).await;
    let (here, there) = (ground.caller(0), ground.caller(1));
    // The app of the first node answers while nobody listens.
    let running = here.submit("/?seconds=1", "\"late\"").await;
    ground.wait_for_run(&running).await;
    let mut waiting = Vec::new();
    for _ in 0..WAITING {
        waiting.push(here.submit("/?seconds=0.05", "\"waiting\"").await);
    }
    ground.pause(0);
    let mut answers = Vec::new();
    for id in std::iter::once(&running).chain(&waiting) {
        answers.push((id.clone(), there.completed(id).await.body));
    }
    ground.resume(0);
    for (id, answer) in &answers {
        let seen = here.completed(id).await;
        assert_eq!((seen.status, &seen.body), (200, answer), "{id}");
        assert_eq!(there.about(id, "").await.unwrap().body, *answer, "{id}");
        // Only what was under way when it was stopped ran at both.
        let most = if *id == running { 2 } else { 1 };
        assert!(ground.runs(id) <= most, "{id} ran {} times", ground.runs(id));
    }
    let next = here.submit("/", "\"next\"").await;
    assert_eq!(there.completed(&next).await.body["echo"], "\"next\"");
    assert_eq!(ground.runs(&next), 1);
    ground.end();
}
