//! What keeps a node from starting is told, and nothing is lost by it.

use std::path::Path;
use std::process::Output;

use glowplug_testkit::processes_with;
use tempfile::TempDir;

use super::ground;

#[expect(clippy::disallowed_methods, reason = "the node under test")]
fn serve(folder: &Path, data_dir: &str, listen: &str) -> Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_glowplug"))
        .args(["serve", "--data-dir", data_dir, "--listen", listen])
        .current_dir(folder)
        .output()
        .unwrap()
}

#[track_caller]
fn assert_refused(output: &Output, reasons: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for reason in reasons {
        assert!(said.contains(reason), "`{reason}` is not in: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_on_the_same_data_is_refused_and_the_first_unharmed() {
    let ground = ground::start("[apps.app]\n$APP\nkeep_alive = 600\n");
    let pid = ground.run("app", "/").await.pid();
    let data_dir = ground.served.data_dir();
    let second = serve(ground.folder(), data_dir.to_str().unwrap(), "127.0.0.1:0");
    assert_refused(&second, &["another node uses", "--data-dir"]);
    let taken = serve(ground.folder(), "elsewhere", &ground.served.address().to_string());
    assert_refused(&taken, &[&ground.served.address().to_string()]);
    assert_eq!(ground.run("app", "/").await.pid(), pid);
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_breaks_between_two_lives_is_refused_and_kept() {
    let mut ground = ground::start("[apps.app]\n$APP\nenv = { SETUP = '100' }\n");
    let id = ground.caller().submit("app", "/", "{}").await.unwrap();
    assert_eq!(ground.served.stop(), Some(0));
    let database = ground.served.data_dir().join("glowplug.db");
    let good = std::fs::read(&database).unwrap();
    let mut bad = good.clone();
    bad[..4096].fill(b'?');
    std::fs::write(&database, &bad).unwrap();
    let data_dir = ground.served.data_dir();
    let refused = serve(ground.folder(), data_dir.to_str().unwrap(), "127.0.0.1:0");
    assert_refused(&refused, &["glowplug.db", "move it away or restore a backup"]);
    assert_eq!(std::fs::read(&database).unwrap(), bad, "it is left as it is");
    // The backup holds what was accepted.
    std::fs::write(&database, &good).unwrap();
    ground.served.start_again().unwrap();
    let status = ground.caller().status("app", &id).await.unwrap();
    assert_eq!(status.body["status"], "IN_QUEUE", "{status:?}");
    ground.end().await;
}

#[test]
fn a_node_beyond_loopback_needs_a_key() {
    let folder = TempDir::new().unwrap();
    assert_refused(&serve(folder.path(), "data", "0.0.0.0:0"), &["glowplug keys create"]);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("file"), "not a directory").unwrap();
    assert_refused(&serve(folder.path(), "file", "127.0.0.1:0"), &["file", "--data-dir"]);
    // Not even root may write here.
    assert_refused(&serve(folder.path(), "/proc/glowplug", "127.0.0.1:0"), &["/proc/glowplug"]);
    assert_eq!(processes_with(&folder.path().display().to_string()), Vec::<u32>::new());
}
