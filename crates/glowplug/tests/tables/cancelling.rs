//! Cancelling, in every state a request can be in, and callers that leave.

use glowplug_testkit::eventually;

use super::ground::{Ground, SOON, app, start};

/// One place, so that what comes second waits.
const SINGLE: &str = "max_multiplexing = 1\nmax_concurrency = 1";

fn single(name: &str) -> String {
    app(name, SINGLE).replace("max_multiplexing = 16\n", "")
}

async fn assert_cancelled(ground: &Ground, app: &str, id: &str) {
    let (status, answer) = ground.completed(app, id).await;
    assert_eq!(status.text("error_type"), Some("client_cancelled"), "{status:?}");
    assert_eq!((status.status, answer.status), (200, 499), "{status:?} {answer:?}");
    let again = ground.cancel(app, id).await;
    assert_eq!((again.status, again.text("status")), (400, Some("ALREADY_COMPLETED")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_removed() {
    let tables = [
        single("busy"),
        app("starting", "env.NEVER = '1'"),
        app("failing", ""),
        app("broken", "env.BROKEN = '1'"),
    ];
    let ground = start(&tables.concat());
    let gate = ground.file("busy-gate");
    let holding = ground.submitted("busy", &format!("/gate?file={}", gate.display()), &[]).await;
    ground.at_work(&holding).await;
    let failing = ground.submitted("failing", "/answer?status=504", &[]).await;
    ground.at_work(&failing).await;
    // The waits between attempts grow: the one after the fourth is long enough to be met.
    let requeued = eventually("the request is between two attempts", SOON, || async {
        let attempts = ground.asked(&failing).len();
        let status = ground.about("failing", &failing, "/status").await;
        (attempts >= 4 && status.text("status") == Some("IN_QUEUE")).then_some(failing.clone())
    })
    .await;
    let rows = [
        ("behind others", "busy", ground.submitted("busy", "/echo", &[]).await),
        ("for a start", "starting", ground.submitted("starting", "/echo", &[]).await),
        ("for the next attempt", "failing", requeued),
        ("for the next start", "broken", ground.submitted("broken", "/echo", &[]).await),
    ];
    for (what, app, id) in rows {
        let before = ground.asked(&id);
        let answer = ground.cancel(app, &id).await;
        assert_eq!((answer.status, answer.text("status")), (200, Some("OK")), "{what}: {answer:?}");
        assert_cancelled(&ground, app, &id).await;
        assert_eq!(ground.asked(&id), before, "{what}: its app was asked afterwards");
    }
    std::fs::write(gate, "").unwrap();
    assert_eq!(ground.completed("busy", &holding).await.1.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_told_to_its_app() {
    let ground = start(&app("app", ""));
    let id = ground.submitted("app", "/job", &[]).await;
    ground.at_work(&id).await;
    let answer = ground.cancel("app", &id).await;
    assert_eq!((answer.status, answer.text("status")), (202, Some("CANCELLATION_REQUESTED")));
    let (status, answer) = ground.completed("app", &id).await;
    assert_eq!((answer.status, &answer.body["stopped"]), (499, &true.into()), "{answer:?}");
    assert_eq!(status.text("error_type"), Some("client_cancelled"), "{status:?}");
    let asked = ground.asked(&id);
    assert_eq!(ground.heard(&id), ["POST /job", "POST /job/cancel", "END /job"]);
    assert!(asked.iter().all(|one| one.pid == asked[0].pid), "the same runner: {asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_cancelled_finishes() {
    let ground = start(&app("app", ""));
    let gate = ground.file("gate");
    let id = ground.submitted("app", &format!("/gate?file={}", gate.display()), &[]).await;
    ground.at_work(&id).await;
    assert_eq!(ground.cancel("app", &id).await.status, 202);
    eventually("the app is asked to stop", SOON, || async {
        ground.heard(&id).contains(&"POST /gate/cancel".to_owned()).then_some(())
    })
    .await;
    std::fs::write(gate, "").unwrap();
    let (_, answer) = ground.completed("app", &id).await;
    assert_eq!((answer.status, &answer.body["passed"]), (200, &true.into()), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_requests_cannot_be_cancelled() {
    let ground = start(&[app("app", ""), app("other", "")].concat());
    let id = ground.submitted("app", "/echo", &[]).await;
    ground.completed("app", &id).await;
    for (app, id) in
        [("app", "0192f0a1-0000-7abc-8def-0123456789ab"), ("app", "nonsense"), ("other", &id)]
    {
        let answer = ground.cancel(app, id).await;
        assert_eq!((answer.status, answer.text("status")), (404, Some("NOT_FOUND")), "{app} {id}");
    }
}

/// Asks for `path` and leaves when the app is at work; the request's id.
async fn leave(ground: &Ground, app: &str, path: &str) -> String {
    let before = ground.lines();
    let asking = ground.client().post(ground.url(&format!("/run/local/{app}{path}"))).send();
    tokio::select! {
        answer = asking => panic!("it was answered: {answer:?}"),
        id = eventually("the app is asked", SOON, || async { ground.newest_after(before) }) => id,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_caller_that_leaves_cancels() {
    let ground = start(&app("app", ""));
    let id = leave(&ground, "app", "/job").await;
    eventually("the app has stopped", SOON, || async {
        ground.heard(&id).contains(&"END /job".to_owned()).then_some(())
    })
    .await;
    let asked = ground.asked(&id);
    assert_eq!(ground.heard(&id), ["POST /job", "POST /job/cancel", "END /job"]);
    assert!(asked.iter().all(|one| one.pid == asked[0].pid), "the same runner: {asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_stays_taken_until_the_work_is_done() {
    let ground = start(&single("app"));
    let gate = ground.file("gate");
    let left = leave(&ground, "app", &format!("/gate?file={}", gate.display())).await;
    let next = ground.submitted("app", "/echo", &[]).await;
    eventually("the app is asked to stop", SOON, || async {
        ground.heard(&left).contains(&"POST /gate/cancel".to_owned()).then_some(())
    })
    .await;
    let status = ground.about("app", &next, "/status").await;
    assert_eq!(status.text("status"), Some("IN_QUEUE"), "{status:?}");
    assert!(ground.asked(&next).is_empty());
    std::fs::write(gate, "").unwrap();
    assert_eq!(ground.completed("app", &next).await.1.status, 200);
    assert_eq!(ground.heard(&left), ["POST /gate", "POST /gate/cancel", "END /gate"]);
}
