//! A start from a zygote is a start like any other, only sooner.

use std::os::unix::fs::PermissionsExt as _;

use super::scene::{FORKED, file, start, start_command, start_file_with_zygote};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_forks_by_itself_is_asked_to() {
    let scene = start_command("env = { GREETING = 'hello' }");
    let plain = scene.call("/").await;
    assert_eq!(plain["loaded_by"], plain["pid"]);
    scene.wait_for_zygote();
    for _ in 0..2 {
        let (runner, forked) = scene.start_anew("/").await;
        scene.wait_for_why(&runner, FORKED);
        assert_eq!(forked["greeting"], plain["greeting"]);
        assert_ne!(forked["loaded_by"], forked["pid"], "another process has loaded it");
        assert_ne!(forked["pid"], plain["pid"]);
        assert!(scene.cli(&["runners", "logs", &runner]).contains("serving"));
    }
    let (runner, _) = scene.start_anew("/").await;
    let (status, _) = scene.try_call("/exit").await;
    assert!(status >= 500, "{status}");
    scene.wait_for_why(&runner, "exited with code 7");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_with_a_user_of_its_own_is_forked_from_a_zygote_of_that_user() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can run programs as another user");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("command.py");
    std::fs::copy(file("command.py"), &program).unwrap();
    let settings = format!(
        "env = {{ GREETING = 'hello' }}\nuser = '65534'\ncwd = '{}'",
        folder.path().display()
    );
    let scene = start_file_with_zygote(&program, "'zygote'", &settings);
    let plain = scene.call("/").await;
    assert_eq!(plain["user"], 65534);
    scene.wait_for_zygote();
    let (runner, forked) = scene.start_anew("/").await;
    scene.wait_for_why(&runner, FORKED);
    assert_eq!(forked["user"], 65534);
    assert_ne!(forked["loaded_by"], forked["pid"], "another process has loaded it");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_program_is_not_forked_from_its_old_zygote() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("command.py");
    let text = std::fs::read_to_string(file("command.py")).unwrap();
    std::fs::write(&program, &text).unwrap();
    let scene = start_file_with_zygote(&program, "'zygote'", "env = { GREETING = 'hello' }");
    scene.call("/").await;
    scene.wait_for_zygote();
    let (runner, _) = scene.start_anew("/").await;
    scene.wait_for_why(&runner, FORKED);
    std::fs::write(&program, text.replace("\"greeting\"", "\"new greeting\"")).unwrap();
    let (runner, answer) = scene.start_anew("/").await;
    assert_eq!(answer["new greeting"], "hello");
    assert!(!scene.cli(&["why", &runner]).contains(FORKED));
    scene.wait_for_zygote();
    let (runner, answer) = scene.start_anew("/").await;
    scene.wait_for_why(&runner, FORKED);
    assert_eq!(answer["new greeting"], "hello");
    scene.end().await;
}
