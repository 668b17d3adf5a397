//! What is kept of a request, for how long, and that the rest is gone from the disk as well.

use std::path::{Path, PathBuf};

use glowplug_testkit::eventually;

use super::ground::{Answer, Ground, SOON, app, start};

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let entries = entries.map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Where below the data directory these bytes are: in the database, its log, or a file of its own.
fn holding(ground: &Ground, bytes: &str) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| {
        // One that has gone meanwhile holds nothing.
        let content = std::fs::read(path).unwrap_or_default();
        content.windows(bytes.len()).any(|window| window == bytes.as_bytes())
    };
    files(&ground.data_dir()).into_iter().filter(holds).collect()
}

fn body_files(ground: &Ground) -> Vec<PathBuf> {
    files(&ground.data_dir().join("glowplug.db.bodies"))
}

async fn submit(ground: &Ground, path: &str, store_io: Option<&str>, body: String) -> String {
    let mut request =
        ground.client().post(ground.url(&format!("/queue/local/app{path}"))).body(body);
    if let Some(value) = store_io {
        request = request.header("x-fal-store-io", value);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.headers()["x-fal-request-id"].to_str().unwrap().to_owned()
}

/// `X-Fal-Store-IO`, how many bytes the payload has, and whether it is kept.
const ROWS: &[(Option<&str>, usize, bool)] = &[
    (None, 100, true),
    (None, 100_000, true),
    (Some("1"), 100, true),
    (Some("nonsense"), 100, true),
    (Some("0"), 100, false),
    (Some("false"), 100, false),
    (Some("0"), 100_000, false),
];

/// While the app is at work the payload must be on the disk, or a crash would lose it. Then it is there for
/// as long as the answer, or nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn payloads_that_are_not_to_be_kept_are_gone_from_the_disk() {
    let ground = start(&app("app", ""));
    for (row, (store_io, bytes, kept)) in ROWS.iter().enumerate() {
        let marker = format!("payload-of-row-{row}");
        let gate = ground.file(&format!("gate-{row}"));
        let body = marker.clone() + &"x".repeat(*bytes);
        let id = submit(&ground, &format!("/gate?file={}", gate.display()), *store_io, body).await;
        ground.at_work(&id).await;
        assert!(!holding(&ground, &marker).is_empty(), "row {row}: it is durable");
        std::fs::write(gate, "").unwrap();
        let (status, answer) = ground.completed("app", &id).await;
        assert_eq!((status.status, answer.status), (200, 200), "row {row}");
        if *kept {
            assert!(!holding(&ground, &marker).is_empty(), "row {row}: it is kept");
            continue;
        }
        eventually("the payload is gone from the disk", SOON, || async {
            holding(&ground, &marker).is_empty().then_some(())
        })
        .await;
        // The answer is the caller's to fetch, again and again, until its time is over.
        let again = ground.about("app", &id, "/response").await;
        assert_eq!((again.status, &again.body), (200, &answer.body), "row {row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_go_when_their_time_is_over() {
    let settings = "[node.queue]\nretention = '1s'\ninline_bytes_max = 0\n";
    let ground = start(&(settings.to_owned() + &app("app", "")));
    let mut asked = Vec::new();
    for store_io in [None, Some("0")] {
        // The answer repeats the payload.
        let id = submit(&ground, "/echo", store_io, "words of the caller".to_owned()).await;
        asked.push(id);
    }
    for id in &asked {
        let gone = eventually("it is forgotten", SOON, || async {
            let answer: Answer = ground.about("app", id, "").await;
            (answer.status == 404).then_some(answer)
        })
        .await;
        assert_eq!(gone.text("status"), Some("NOT_FOUND"));
        assert_eq!(ground.about("app", id, "/status").await.status, 404);
    }
    eventually("nothing is left on the disk", SOON, || async {
        (body_files(&ground).is_empty() && holding(&ground, "words of the caller").is_empty())
            .then_some(())
    })
    .await;
}

/// A payload that was damaged on the disk fails its request, with an error of the node's own.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_payload_is_an_internal_error() {
    let single = app("app", "max_concurrency = 1").replace("max_multiplexing = 16\n", "");
    let ground = start(&single);
    let gate = ground.file("gate");
    let holding = ground.submitted("app", &format!("/gate?file={}", gate.display()), &[]).await;
    ground.at_work(&holding).await;
    let damaged = submit(&ground, "/echo", None, "x".repeat(100_000)).await;
    let [file] = &body_files(&ground)[..] else { panic!("it has a file of its own") };
    std::fs::write(file, "y".repeat(100_000)).unwrap();
    let after = submit(&ground, "/echo", None, "{}".to_owned()).await;
    std::fs::write(gate, "").unwrap();
    let (status, answer) = ground.completed("app", &damaged).await;
    assert_eq!((answer.status, answer.text("error_type")), (500, Some("internal_error")));
    assert_eq!(answer.header("x-fal-error-type"), Some("internal_error"));
    assert_eq!(status.text("error_type"), Some("internal_error"));
    assert!(ground.asked(&damaged).is_empty(), "the app never saw it");
    assert_eq!(ground.completed("app", &after).await.1.status, 200, "the others are served");
}
