//! When a waiting request is told to expect its answer, and what that was made of.

use serde_json::Value;

use super::ground::{Answer, Ground, app, start};

/// What an attempt takes at least: the app sleeps for so long.
const SERVICE_SECONDS: f64 = 0.2;
/// What the node may take for an attempt beside its app.
const NODES_PART: f64 = 2.0;
/// The header has milliseconds.
const ROUNDED: f64 = 0.001;

/// The seconds of an answer's `eta`, which its header repeats; `None` where there are none.
fn seconds(answer: &Answer) -> Option<f64> {
    let header = answer.header("x-glowplug-eta-seconds");
    let Value::Object(eta) = &answer.body["eta"] else {
        assert_eq!(header, None, "{answer:?}");
        return None;
    };
    let seconds = eta["seconds"].as_f64().unwrap();
    let told: f64 = header.unwrap().parse().unwrap();
    assert!((told - seconds).abs() <= ROUNDED, "{answer:?}");
    Some(seconds)
}

/// Takes the service time out of a basis such as `3 ahead on 2 places, 210 ms each`.
fn service(basis: &str, ahead: usize) -> f64 {
    let each = basis.strip_prefix(&format!("{ahead} ahead on 1 place, "));
    let (number, unit) =
        each.and_then(|each| each.strip_suffix(" each")?.split_once(' ')).expect(basis);
    let number: f64 = number.parse().unwrap();
    match unit {
        "ms" => number / 1_000.0,
        "s" => number,
        _ => panic!("{basis}"),
    }
}

/// An app with one place, held until `gate` exists.
async fn held(ground: &Ground) -> std::path::PathBuf {
    let gate = ground.file("gate");
    let id = ground.submitted("app", &format!("/gate?file={}", gate.display()), &[]).await;
    ground.at_work(&id).await;
    let status = ground.about("app", &id, "/status").await;
    assert_eq!(seconds(&status), None, "it does not wait");
    gate
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_before_anything_is_known() {
    let single = app("app", "max_concurrency = 1").replace("max_multiplexing = 16\n", "");
    let ground = start(&single);
    let gate = held(&ground).await;
    let submit = ground.submit("app", "/echo", &[]).await;
    assert_eq!(seconds(&submit), None);
    assert_eq!(seconds(&ground.about("app", &submit.id(), "/status").await), None);
    std::fs::write(gate, "").unwrap();
    let (status, _) = ground.completed("app", &submit.id()).await;
    assert_eq!(seconds(&status), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_in_line_is_told_of_those_before_it() {
    let single = app("app", "max_concurrency = 1").replace("max_multiplexing = 16\n", "");
    let ground = start(&single);
    let path = format!("/work?seconds={SERVICE_SECONDS}");
    let known = ground.submitted("app", &path, &[]).await;
    let (status, _) = ground.completed("app", &known).await;
    let took = status.body["metrics"]["inference_time"].as_f64().unwrap();
    let gate = held(&ground).await;
    let mut last = None;
    for ahead in 0..4 {
        let submit = ground.submit("app", &path, &[]).await;
        let status = ground.about("app", &submit.id(), "/status").await;
        for answer in [&submit, &status] {
            let basis = answer.body["eta"]["basis"].as_str().unwrap();
            let each = service(basis, ahead);
            // What the app takes at least, and what the node adds to it on a busy machine.
            assert!((SERVICE_SECONDS..took + NODES_PART).contains(&each), "{basis}, took {took}");
            // Its own attempt, those before it, and what is left of the one at work.
            let turns = |count: usize| f64::from(u32::try_from(count).unwrap()) * each;
            let slack = 0.01 * turns(ahead + 2);
            let eta = seconds(answer).unwrap();
            let range = turns(ahead + 1) - slack..=turns(ahead + 2) + slack;
            assert!(range.contains(&eta), "{eta} of {range:?}: {answer:?}");
        }
        last = Some(submit.id());
    }
    let stream = format!("/queue/local/app/requests/{}/status/stream", last.as_ref().unwrap());
    let mut events = ground.client().get(ground.url(&stream)).send().await.unwrap();
    let first = events.chunk().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("3 ahead on 1 place"), "{first:?}");
    drop(events);
    std::fs::write(gate, "").unwrap();
    let (status, _) = ground.completed("app", &last.unwrap()).await;
    assert_eq!(seconds(&status), None, "what is complete is expected no more");
}
