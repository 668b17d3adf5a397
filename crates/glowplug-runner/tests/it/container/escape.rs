//! A program that tries to get out, and what it finds.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use futures::StreamExt;
use glowplug_runner::conformance::{Node, leaves_nothing};
use glowplug_runner::{Capabilities, ContainerSpec, ContainerUser, Network, SystemCalls};

use crate::process::fixture::{ProcessFixture, Runner};

on_each_runtime! {
    nobody_gets_out
    without_the_filter_the_rest_holds
    a_container_with_everything_allowed_is_no_container
    a_setuid_program_does_not_make_root
}

/// All attempts that the program makes.
const ATTEMPTS: usize = 37;
/// Refused by the filter alone: root without rights may do these on most hosts.
const HELD_BY_FILTER: [&str; 4] = ["unshare-user", "keys", "bpf", "io-uring"];

/// What there is on the host to aim at.
struct Targets {
    port: TcpListener,
    abstract_name: String,
    _abstract: UnixListener,
}

impl Targets {
    fn new(fixture: &ProcessFixture) -> Self {
        let abstract_name = format!("glowplug-test-{}", fixture.path().display());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        std::fs::write(fixture.path().join("secret"), "secret").unwrap();
        Self {
            port: TcpListener::bind("127.0.0.1:0").unwrap(),
            abstract_name,
            _abstract: UnixListener::bind_addr(&address).unwrap(),
        }
    }
}

/// A fixture whose image also holds what an image must not bring: a device, and a program that makes root.
fn hostile_image(runtime: Runner) -> Option<ProcessFixture> {
    let fixture = ProcessFixture::if_possible(runtime)?;
    let image = fixture.image();
    let program = env!("CARGO_BIN_EXE_glowplug-escape-program");
    for name in ["escape", "setuid-program"] {
        std::fs::copy(program, image.join(name)).unwrap();
    }
    let setuid = std::fs::Permissions::from_mode(0o4755);
    std::fs::set_permissions(image.join("setuid-program"), setuid).unwrap();
    let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from(0o666));
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(rustix::fs::CWD, image.join("image-null"), kind, mode, null).unwrap();
    Some(fixture)
}

/// What the program says from its start to its end.
async fn run(
    fixture: &ProcessFixture,
    targets: &Targets,
    words: &[&str],
    change: impl FnOnce(&mut ContainerSpec),
) -> Vec<String> {
    let mut node = Node::start(fixture);
    let mut spec = fixture.spec_of(1, &[]);
    spec.argv = vec!["/escape".to_owned()];
    spec.argv.extend(words.iter().map(|word| (*word).to_owned()));
    let env = [
        ("HOST_FILE", fixture.path().join("secret").display().to_string()),
        ("HOST_PID", std::process::id().to_string()),
        ("HOST_PORT", targets.port.local_addr().unwrap().port().to_string()),
        ("HOST_ABSTRACT", targets.abstract_name.clone()),
    ];
    spec.env.extend(env.map(|(name, value)| (name.to_owned(), value)));
    change(spec.container.as_mut().unwrap());
    node.ensure(&spec).await;
    node.spawned(spec.id).await;
    let exit = node.exited(spec.id).await;
    let lines = node.backend.logs(spec.id, 0, false).await.unwrap();
    let lines: Vec<String> = lines.map(|line| line.text).collect().await;
    node.backend.forget(spec.id).await.unwrap();
    assert!(matches!(exit.cause, glowplug_runner::ExitCause::Code(0)), "{exit:?} {lines:#?}");
    lines
}

fn escaped(lines: &[String]) -> Vec<&str> {
    let names = lines.iter().filter_map(|line| line.strip_prefix("ESCAPED "));
    names.filter_map(|line| line.split(':').next()).collect()
}

fn attempts(lines: &[String]) -> usize {
    let is_attempt = |line: &&String| line.starts_with("held ") || line.starts_with("ESCAPED ");
    lines.iter().filter(is_attempt).count()
}

async fn nobody_gets_out(runtime: Runner) {
    let Some(fixture) = hostile_image(runtime) else { return };
    let targets = Targets::new(&fixture);
    let users = [
        ContainerUser::Ids { uid: 0, gid: 0, groups: vec![] },
        ContainerUser::Ids { uid: 65534, gid: 65534, groups: vec![] },
    ];
    for user in users {
        let lines = run(&fixture, &targets, &["attempts"], |spec| spec.user = user.clone()).await;
        assert_eq!(attempts(&lines), ATTEMPTS, "{user:?} {lines:#?}");
        assert!(escaped(&lines).is_empty(), "{user:?} {lines:#?}");
    }
    leaves_nothing(&fixture).await;
}

/// No protection is the only one: without the filter, the namespaces and the missing rights still hold.
async fn without_the_filter_the_rest_holds(runtime: Runner) {
    let Some(fixture) = hostile_image(runtime) else { return };
    let targets = Targets::new(&fixture);
    let all = |spec: &mut ContainerSpec| spec.system_calls = SystemCalls::All;
    let lines = run(&fixture, &targets, &["attempts"], all).await;
    assert_eq!(attempts(&lines), ATTEMPTS, "{lines:#?}");
    let escaped = escaped(&lines);
    assert!(escaped.iter().all(|name| HELD_BY_FILTER.contains(name)), "{lines:#?}");
    leaves_nothing(&fixture).await;
}

/// The attempts are real: what is let through on purpose is found.
async fn a_container_with_everything_allowed_is_no_container(runtime: Runner) {
    let Some(fixture) = hostile_image(runtime) else { return };
    let targets = Targets::new(&fixture);
    let open = |spec: &mut ContainerSpec| {
        spec.system_calls = SystemCalls::All;
        spec.capabilities = Capabilities::from_bits(u64::MAX);
        spec.network = Network::Host;
    };
    let lines = run(&fixture, &targets, &["attempts"], open).await;
    let escaped = escaped(&lines);
    for name in ["host-port", "host-abstract-socket", "mount-tmpfs", "raw-socket", "make-device"] {
        assert!(escaped.contains(&name), "{name}: {lines:#?}");
    }
    // Not even then may it make what is not among its devices, where control groups can say so.
    // runc lets it make any, and open none.
    if std::path::Path::new("/sys/fs/cgroup/devices/devices.list").exists() && runtime != "runc" {
        assert!(!escaped.contains(&"make-memory-device"), "{lines:#?}");
    }
    leaves_nothing(&fixture).await;
}

async fn a_setuid_program_does_not_make_root(runtime: Runner) {
    let Some(fixture) = hostile_image(runtime) else { return };
    let targets = Targets::new(&fixture);
    let lines = run(&fixture, &targets, &["setuid"], |spec| {
        spec.user = ContainerUser::Ids { uid: 65534, gid: 65534, groups: vec![] };
    })
    .await;
    assert_eq!(lines, ["setuid 65534"]);
    leaves_nothing(&fixture).await;
}
