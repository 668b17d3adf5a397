//! What a program finds when it starts, and what is said when it cannot.

use glowplug_runner::conformance::{Fixture, Node, Program, get, leaves_nothing};
use glowplug_runner::{BackendError, ExitCause, Limits, Listen};

use super::fixture::ProcessFixture;

#[tokio::test]
async fn the_environment_is_minimal_and_complete() {
    let fixture = ProcessFixture::new();
    let mut node = Node::start(&fixture);
    let mut spec = fixture.spec(1, Program::Serves);
    spec.env.insert("SECRET".to_owned(), "s3cr3t-value".to_owned());
    spec.gpus = vec![0, 2];
    let address = node.bring_up(&spec).await;
    let (_, environment) = get(&address, "/env").await.unwrap();
    let has = |line: &str| environment.lines().any(|variable| variable == line);
    assert!(has("CUDA_VISIBLE_DEVICES=0,2") && has("HOST=127.0.0.1"), "{environment}");
    assert!(has("SECRET=s3cr3t-value"), "{environment}");
    // The test's own environment has it, and a runner must not.
    assert!(!environment.contains("CARGO_"), "{environment}");
    for file in std::fs::read_dir(fixture.runner_dir(spec.id)).unwrap().flatten() {
        let content = std::fs::read(file.path()).unwrap();
        let content = String::from_utf8_lossy(&content);
        assert!(!content.contains("s3cr3t-value"), "{:?} holds the secret", file.path());
    }
    node.clear(spec.id).await;

    let mut bare = fixture.spec(2, Program::Serves);
    bare.listen = Listen::UnixSocket;
    let address = node.bring_up(&bare).await;
    let (_, environment) = get(&address, "/env").await.unwrap();
    assert!(environment.lines().any(|line| line == "CUDA_VISIBLE_DEVICES="), "{environment}");
    assert!(!environment.contains("PORT="), "{environment}");
    node.clear(bare.id).await;
    leaves_nothing(&fixture).await;
}

#[tokio::test]
async fn limits_are_lowered_only() {
    let fixture = ProcessFixture::new();
    let mut node = Node::start(&fixture);
    let limits_of = async |node: &mut Node, number, open_files_max| {
        let mut spec = fixture.spec(number, Program::Serves);
        spec.limits = Limits { open_files_max, ..Limits::default() };
        let address = node.bring_up(&spec).await;
        let (_, limits) = get(&address, "/limits").await.unwrap();
        node.clear(spec.id).await;
        let line = |name: &str| {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        (line("Max open files"), line("Max core file size"))
    };
    let (files, core) = limits_of(&mut node, 1, Some(100)).await;
    assert_eq!(
        (&files[..2], &core[..2]),
        (&["100", "100"].map(str::to_owned)[..], &["0", "0"].map(str::to_owned)[..])
    );
    let (untouched, _) = limits_of(&mut node, 2, None).await;
    let (not_raised, _) = limits_of(&mut node, 3, Some(1 << 40)).await;
    assert_eq!(untouched, not_raised);
    leaves_nothing(&fixture).await;
}

#[tokio::test]
async fn a_program_that_cannot_start_is_explained() {
    let fixture = ProcessFixture::new();
    let mut node = Node::start(&fixture);
    let mut missing = fixture.spec(1, Program::Serves);
    missing.argv = vec!["no-such-program-anywhere".to_owned()];
    let mut homeless = fixture.spec(2, Program::Serves);
    homeless.cwd = fixture.path().join("nowhere");
    let mut forbidden = fixture.spec(3, Program::Serves);
    forbidden.argv = vec!["/etc/passwd".to_owned()];
    let mut empty = fixture.spec(4, Program::Serves);
    empty.argv = Vec::new();
    let expected = ["was not found", "does not exist", "may not be run", "is empty"];
    for (spec, words) in [missing, homeless, forbidden, empty].iter().zip(expected) {
        node.ensure(spec).await;
        match node.exited(spec.id).await.cause {
            ExitCause::SpawnFailed(problem) => assert!(problem.contains(words), "{problem}"),
            other => panic!("{words}: {other:?}"),
        }
        node.backend.forget(spec.id).await.unwrap();
    }
    leaves_nothing(&fixture).await;
}

#[tokio::test]
async fn an_unknown_user_is_refused_and_leaves_no_files() {
    let fixture = ProcessFixture::new();
    let node = Node::start(&fixture);
    let mut spec = fixture.spec(1, Program::Serves);
    spec.user = Some("nobody-has-this-name".to_owned());
    let refused = node.backend.ensure(&spec).await;
    assert!(matches!(refused, Err(BackendError::Prepare { .. })), "{refused:?}");
    leaves_nothing(&fixture).await;
}

#[tokio::test]
async fn a_user_without_rights_gets_none() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can run programs as another user");
        return;
    }
    let fixture = ProcessFixture::new();
    let mut node = Node::start(&fixture);
    for (number, listen) in [(1, Listen::Port), (2, Listen::UnixSocket)] {
        let mut spec = fixture.spec(number, Program::Serves);
        spec.user = Some("65534".to_owned());
        spec.listen = listen;
        let program = fixture.public_copy(&spec.argv[0]);
        spec.argv[0] = program.display().to_string();
        let address = node.bring_up(&spec).await;
        let (_, status) = get(&address, "/status").await.unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(field("Uid:"), "65534 65534 65534 65534");
        assert_eq!(field("Gid:").split(' ').next(), field("Gid:").split(' ').next_back());
        assert_ne!(field("Gid:").split(' ').next(), Some("0"));
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("CapEff:"), "0000000000000000");
        assert!(!field("Groups:").split(' ').any(|group| group == "0"), "{status}");
        node.clear(spec.id).await;
    }
    leaves_nothing(&fixture).await;
}

#[tokio::test]
async fn a_port_is_not_given_out_again_at_once() {
    let fixture = ProcessFixture::new();
    let mut node = Node::start(&fixture);
    let mut ports = std::collections::HashSet::new();
    for number in 1..=5 {
        let spec = fixture.spec(number, Program::Serves);
        ports.insert(node.bring_up(&spec).await);
        node.clear(spec.id).await;
    }
    assert_eq!(ports.len(), 5, "{ports:?}");
    leaves_nothing(&fixture).await;
}
