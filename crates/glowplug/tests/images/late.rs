//! Runners that start before their images are here.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use glowplug_testkit::{TableFormat, eventually, wait_until};
use serde_json::json;

use super::ground::{Ground, Server};
use super::{SOON, was_pulled};

/// Smaller images are pulled first.
const IMAGE_BYTES: usize = 34 << 20;
/// A pull of the image takes longer than a test.
const SLOWLY: &str = "[node.images]\nbytes_per_second_max = \"1MiB\"\n";

/// Bytes that no compression makes smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend(state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

fn late_folders(node: &Ground) -> Vec<PathBuf> {
    let folder = node.served.data_dir().join("images/late");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

/// They end a moment after the last who uses their image.
fn no_filler_is_left(node: &Ground) {
    wait_until("the filler has ended", Duration::from_secs(20), || {
        late_folders(node).is_empty().then_some(())
    });
}

fn nothing_is_left(node: &Ground) {
    no_filler_is_left(node);
    assert_eq!(node.mounts(), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_runner_serves_and_reads_on_when_its_node_is_killed() {
    let Some(server) = Server::new() else { return };
    let model = noise(IMAGE_BYTES);
    let unread: &[u8] = &model[..300_000];
    let files: [(&str, &[u8]); 2] = [("model", &model), ("www/unread", unread)];
    let image = server.push_with_table("late:1", TableFormat::ZstdChunked, &files).await;
    let mut node =
        Ground::start(&format!("{SLOWLY}[apps.app]\nimage = \"{image}\"\nkeep_alive = 60\n"));
    assert_eq!(node.ask("app").await, (200, "one\n".to_owned()), "{}", node.served.log());
    let before = node.only_runner("app").await;
    assert!(was_pulled(&before), "{before}");
    assert_eq!(node.get("/api/v1/images").await, json!([]), "it is not here");
    let folders = late_folders(&node);
    assert_eq!(folders.len(), 1);

    node.served.kill();
    node.served.start_again().unwrap();
    let (status, bytes) = node.get_bytes("/run/local/app/unread").await;
    assert_eq!((status, bytes.len()), (200, unread.len()));
    assert!(bytes == unread, "it is not what is in the image");
    assert_eq!(node.only_runner("app").await["id"], before["id"]);
    assert_eq!(late_folders(&node), folders);

    assert_eq!(node.served.stop(), Some(0), "{}", node.served.log());
    nothing_is_left(&node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_late_start_the_image_is_pulled_and_the_next_start_is_an_ordinary_one() {
    let Some(server) = Server::new() else { return };
    let model = noise(IMAGE_BYTES);
    let files: [(&str, &[u8]); 1] = [("model", &model)];
    let image = server.push_with_table("late:1", TableFormat::ZstdChunked, &files).await;
    let mut node = Ground::start(&format!("[apps.app]\nimage = \"{image}\"\nkeep_alive = 1\n"));
    assert_eq!(node.ask("app").await, (200, "one\n".to_owned()), "{}", node.served.log());
    let pulled = || async {
        let images = node.get("/api/v1/images").await;
        (images.as_array().unwrap().len() == 1).then_some(())
    };
    eventually("the image is pulled behind", 2 * SOON, pulled).await;
    node.wait_until_cold("app").await;
    no_filler_is_left(&node);
    assert_eq!(node.ask("app").await, (200, "one\n".to_owned()));
    let second = node.only_runner("app").await;
    assert!(!was_pulled(&second), "{second}");
    assert_eq!(node.served.stop(), Some(0), "{}", node.served.log());
    nothing_is_left(&node);
}

/// The processes that hold something open in the folder.
fn holders(folder: &Path) -> Vec<i32> {
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.parse().ok()
    });
    let holds = |pid: &i32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|file| file.starts_with(folder))
    };
    numbers.filter(holds).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_whose_filler_is_killed_is_replaced() {
    let Some(server) = Server::new() else { return };
    let model = noise(IMAGE_BYTES);
    let unread: &[u8] = &model[..300_000];
    let files: [(&str, &[u8]); 2] = [("model", &model), ("www/unread", unread)];
    let image = server.push_with_table("late:1", TableFormat::ZstdChunked, &files).await;
    let mut node =
        Ground::start(&format!("{SLOWLY}[apps.app]\nimage = \"{image}\"\nkeep_alive = 60\n"));
    assert_eq!(node.ask("app").await, (200, "one\n".to_owned()), "{}", node.served.log());
    let before = node.only_runner("app").await;
    // One that was taken over is looked after as well.
    node.served.kill();
    let lock = late_folders(&node)[0].join("lock");
    let fillers = holders(&lock);
    assert_eq!(fillers.len(), 1, "{fillers:?}");
    node.served.start_again().unwrap();
    let filler = rustix::process::Pid::from_raw(fillers[0]).unwrap();
    rustix::process::kill_process(filler, rustix::process::Signal::KILL).unwrap();

    let replaced = || async {
        let runners = node.get("/api/v1/runners").await;
        runners.as_array().unwrap().iter().all(|runner| runner["id"] != before["id"]).then_some(())
    };
    eventually("the runner is gone", SOON, replaced).await;
    assert!(node.served.log().contains("what serves the files of its image has died"));
    let (status, bytes) = node.get_bytes("/run/local/app/unread").await;
    assert_eq!((status, bytes.len()), (200, unread.len()), "{}", node.served.log());
    assert!(bytes == unread, "it is not what is in the image");
    assert_eq!(node.served.stop(), Some(0), "{}", node.served.log());
    nothing_is_left(&node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_can_want_its_image_to_be_here() {
    let Some(server) = Server::new() else { return };
    let model = noise(IMAGE_BYTES);
    let files: [(&str, &[u8]); 1] = [("model", &model)];
    let image = server.push_with_table("late:1", TableFormat::ZstdChunked, &files).await;
    let mut node = Ground::start(&format!(
        "[apps.app]\nimage = \"{image}\"\nlazy = \"off\"\nkeep_alive = 60\n"
    ));
    assert_eq!(node.ask("app").await, (200, "one\n".to_owned()), "{}", node.served.log());
    assert_eq!(node.get("/api/v1/images").await.as_array().unwrap().len(), 1);
    assert_eq!(late_folders(&node), [] as [PathBuf; 0]);
    assert_eq!(node.served.stop(), Some(0), "{}", node.served.log());
}
