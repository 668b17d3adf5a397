//! What is on the disk, how it is made room for, and what damage is found: with a node and without one.

use std::fs;
use std::path::{Path, PathBuf};

use glowplug_testkit::eventually;
use serde_json::{Value, json};

use crate::ground::{Ground, Server};
use crate::{SOON, was_pulled};

const MODEL_BYTES: usize = 300_000;
/// Of what each of several images has to itself.
const OWN_BYTES: usize = 3 << 20;

/// Compresses to nothing much less, and differs by its number.
fn model(number: u64) -> Vec<u8> {
    noise(number, MODEL_BYTES)
}

fn noise(number: u64, bytes: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(step).take(bytes).collect()
}

async fn names(node: &Ground) -> Vec<String> {
    let images = node.get("/api/v1/images").await;
    let first = |image: &Value| image["names"][0].as_str().unwrap().to_owned();
    let mut names: Vec<String> = images.as_array().unwrap().iter().map(first).collect();
    names.sort();
    names
}

/// The one large file below the store that has as many bytes as a model.
fn content(images: &Path) -> PathBuf {
    let shards = fs::read_dir(images.join("contents")).unwrap();
    let files = shards.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap());
    let mut paths = files.map(|file| file.unwrap().path());
    paths.find(|path| path.metadata().unwrap().len() == MODEL_BYTES as u64).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_app_wants_can_go_with_a_node_and_without() {
    let Some(server) = Server::new() else { return };
    let app = server.push("app:1").await;
    let mut others = Vec::new();
    for number in 1..=2_u8 {
        let name = format!("other:{number}");
        others.push(server.push_with(&name, &model(u64::from(number))).await);
    }
    let mut node = Ground::start(&format!("[apps.app]\nimage = \"{app}\"\nkeep_alive = 1\n"));
    assert_eq!(node.ask("app").await.0, 200);
    for other in &others {
        assert_eq!(node.command(&["image", "pull", other]).await.0, 0);
    }

    let (code, shown) = node.command(&["image", "show", &others[0]]).await;
    assert_eq!(code, 0, "{shown}");
    assert_eq!((&shown["names"], &shown["apps"]), (&json!([&others[0]]), &json!([])));
    assert_eq!(shown["layer_list"][0]["other_images"], 2);
    assert_eq!(shown["layer_list"][1]["bytes"], MODEL_BYTES);
    assert_eq!(shown["config"]["User"], "app");
    assert_eq!(shown["shared"].as_array().unwrap().len(), 2);
    assert!(shown["own_bytes"].as_u64().unwrap() >= MODEL_BYTES as u64, "{shown}");

    // Without a limit no image goes, and a dry run removes nothing.
    let (_, gone) = node.command(&["image", "gc"]).await;
    assert_eq!((&gone["images"], &gone["bytes"]), (&json!([]), &json!(0)));
    let (_, gone) = node.command(&["image", "gc", "--keep", "0", "--dry-run"]).await;
    assert_eq!(gone["images"].as_array().unwrap().len(), 2);
    assert_eq!(names(&node).await.len(), 3);
    let keep = gone["left_bytes"].as_u64().unwrap() + MODEL_BYTES as u64 * 3 / 2;
    let (_, gone) = node.command(&["image", "gc", "--keep", &keep.to_string()]).await;
    assert_eq!(gone["images"].as_array().unwrap().len(), 1, "{gone}");
    assert!(gone["bytes"].as_u64().unwrap() >= MODEL_BYTES as u64, "{gone}");
    assert_eq!(names(&node).await.len(), 2);

    // The app's own image stays though its runner has gone, and though no node runs.
    node.wait_until_cold("app").await;
    assert_eq!(node.served.stop(), Some(0), "{}", node.served.log());
    let (code, gone) = node.command(&["image", "gc", "--keep", "0"]).await;
    assert_eq!(code, 0, "{gone}");
    assert_eq!(gone["images"].as_array().unwrap().len(), 1, "{gone}");
    let (_, shown) = node.command(&["image", "show", &app]).await;
    assert_eq!(shown["apps"], json!(["local/app"]));
    let (code, told) = node.command(&["image", "show", &others[0]]).await;
    assert_eq!(code, 1, "{told}");
    assert!(told.as_str().unwrap().contains("no image on the disk is called"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_and_mended_with_a_node_and_without() {
    let Some(server) = Server::new() else { return };
    let app = server.push_with("app:1", &model(1)).await;
    let mut node = Ground::start(&format!("[apps.app]\nimage = \"{app}\"\nkeep_alive = 1\n"));
    for is_running in [true, false] {
        assert_eq!(node.command(&["image", "pull", &app]).await.0, 0);
        if !is_running {
            assert_eq!(node.served.stop(), Some(0), "{}", node.served.log());
        }
        let (code, found) = node.command(&["image", "fsck"]).await;
        assert_eq!((code, &found["images"]), (0, &json!([])), "{found}");
        assert!(found["bytes_read"].as_u64().unwrap() > MODEL_BYTES as u64, "{found}");

        let damaged = content(&node.served.data_dir().join("images"));
        fs::remove_file(&damaged).unwrap();
        fs::write(&damaged, vec![0; MODEL_BYTES]).unwrap();
        let (code, found) = node.command(&["image", "fsck"]).await;
        let counts =
            ["contents", "layers", "images"].map(|key| found[key].as_array().unwrap().len());
        assert_eq!((code, counts), (1, [1, 1, 1]), "{found}");
        let (code, found) = node.command(&["image", "fsck", "--repair"]).await;
        assert_eq!((code, &found["repaired"]), (1, &json!(true)), "{found}");
        assert_eq!(node.command(&["image", "fsck"]).await.0, 0);
        if !is_running {
            node.served.start_again().unwrap();
        }
        assert_eq!(node.ask("app").await.0, 200);
        node.wait_until_cold("app").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_stay_within_their_budget() {
    let Some(server) = Server::new() else { return };
    let app = server.push_with("app:1", &noise(9, OWN_BYTES)).await;
    // For the app's own, two more, and the program that all of them have.
    let budget = 4 * OWN_BYTES;
    let mut node = Ground::start(&format!(
        "[node.images]\nbudget = {budget}\n[apps.app]\nimage = \"{app}\"\nkeep_alive = 1\n"
    ));
    assert_eq!(node.ask("app").await.0, 200);
    let mut pulled = Vec::new();
    for number in 0..6_u8 {
        let name = format!("other:{number}");
        pulled.push(server.push_with(&name, &noise(100 + u64::from(number), OWN_BYTES)).await);
        assert_eq!(node.command(&["image", "pull", pulled.last().unwrap()]).await.0, 0);
    }
    let (newest, oldest) = (pulled.last().unwrap(), &pulled[0]);
    let left = eventually("images are within their budget", SOON, || async {
        let (_, gone) = node.command(&["image", "gc", "--dry-run"]).await;
        (gone["images"] == json!([]) && gone["bytes"] == 0).then_some(gone)
    })
    .await;
    assert!(left["left_bytes"].as_u64().unwrap() <= budget as u64, "{left}");
    let names = names(&node).await;
    assert!(names.contains(&app) && names.contains(newest) && !names.contains(oldest), "{names:?}");
    assert!(node.served.log().contains("an image went"), "{}", node.served.log());

    // A node that comes back collects nothing before it knows what its apps want.
    node.wait_until_cold("app").await;
    assert_eq!(node.served.stop(), Some(0), "{}", node.served.log());
    node.served.start_again().unwrap();
    let other = server.push_with("other:last", &noise(99, OWN_BYTES)).await;
    assert_eq!(node.command(&["image", "pull", &other]).await.0, 0);
    assert_eq!(node.ask("app").await.0, 200);
    assert!(!was_pulled(&node.only_runner("app").await), "{}", node.served.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_judged_and_written_anew_with_a_node_and_without() {
    let Some(server) = Server::new() else { return };
    let app = server.push_with("app:1", &noise(3, OWN_BYTES)).await;
    let mut node = Ground::start(&format!("[apps.app]\nimage = \"{app}\"\nkeep_alive = 1\n"));
    let mut digests = Vec::new();
    for round in ["with", "without"] {
        let (code, report) = node.command(&["image", "analyze", &app]).await;
        assert_eq!(code, 0, "{report}");
        assert_eq!(report["layers"].as_array().unwrap().len(), 2, "{report}");
        assert!(report["visible_bytes"].as_u64().unwrap() > OWN_BYTES as u64, "{report}");
        let to = server.name(&format!("app:{round}"));
        let (code, done) = node.command(&["image", "convert", &app, "--to", &to]).await;
        assert_eq!(code, 0, "{done}");
        digests.push(done["digest"].as_str().unwrap().to_owned());
        if round == "with" {
            assert_eq!(node.served.stop(), Some(0), "{}", node.served.log());
        }
    }
    assert_eq!(digests[0], digests[1]);
    // From the registry into a file, and the file is an image like any other.
    let file = node.served.folder().join("converted.tar");
    let to = format!("archive:{}", file.display());
    let (code, done) =
        node.command(&["image", "convert", &server.name("app:with"), "--to", &to]).await;
    assert_eq!((code, done["digest"].as_str().unwrap()), (0, &*digests[0]), "{done}");
    let (code, report) = node.command(&["image", "analyze", file.to_str().unwrap()]).await;
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["layers"].as_array().unwrap().len(), 2, "{report}");
}
