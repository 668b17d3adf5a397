//! What `glowplug doctor` says of the queue: as the node that runs sees it, else as it lies on the disk.

use std::time::Duration;

use glowplug_node::config::Config;
use glowplug_node::store::{self, Room};
use reqwest::StatusCode;

use super::Finding;

/// For a node on this machine to say whether its store takes work.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
const MIB: u64 = 1 << 20;

pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let look = store::look(config);
    let node = config.node.listen.to_string();
    let queue = match (ask(&node).await, look.problem) {
        (Some(Ok(())), _) => Finding::ok(QUEUE, format!("{} takes requests", look.place)),
        (Some(Err(said)), _) => {
            let remedy = "what was accepted is kept; new requests are refused until this is mended";
            Finding { status: "limited", ..Finding::missing(QUEUE, said, remedy) }
        }
        (None, Some(problem)) => {
            let remedy = "move it away, or restore a backup";
            Finding::missing(QUEUE, problem.to_string(), remedy).needed()
        }
        (None, None) => Finding::ok(QUEUE, format!("{}; no node has it open", look.place)),
    };
    [Some(queue), look.room.map(disk)].into_iter().flatten().collect()
}

const QUEUE: &str = "queue";

/// What the node at this address says of itself. `None`: there is none.
async fn ask(node: &str) -> Option<Result<(), String>> {
    let client = reqwest::Client::builder().no_proxy().timeout(ASK_TIMEOUT).build().ok()?;
    let answer = client.get(format!("http://{node}/readyz")).send().await.ok()?;
    if answer.status() == StatusCode::OK {
        return Some(Ok(()));
    }
    let said: serde_json::Value = answer.json().await.ok()?;
    Some(Err(said["detail"].as_str()?.to_owned()))
}

fn disk(room: Room) -> Finding {
    let Room { free_bytes, reserve_bytes } = room;
    let detail = format!(
        "{} MiB free; {} MiB are kept for answers",
        free_bytes / MIB,
        reserve_bytes.div_ceil(MIB)
    );
    if free_bytes >= reserve_bytes {
        return Finding::ok(DISK, detail);
    }
    let remedy =
        "new requests are refused: free some space, or lower `disk_reserve` below [node.queue]";
    Finding { status: "limited", ..Finding::missing(DISK, detail, remedy) }
}

const DISK: &str = "disk";
