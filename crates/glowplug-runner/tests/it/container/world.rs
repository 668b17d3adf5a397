//! What a program finds in its container, and what is said when it cannot start.

use std::collections::BTreeMap;
use std::path::PathBuf;

use glowplug_runner::conformance::{Fixture, Node, Program, get, leaves_nothing};
use glowplug_runner::{
    BackendError, Bind, ContainerUser, ExitCause, Listen, Network, RunnerAddress, RunnerSpec,
    SecretFiles, StopMode, Writes,
};

use crate::process::fixture::{ProcessFixture, Runner};

on_each_runtime! {
    the_user_is_the_containers_own
    two_containers_listen_on_the_same_port
    the_hosts_network_is_the_hosts
    a_link_in_place_of_the_socket_is_not_followed
    a_killed_supervisor_takes_the_container_along
    the_image_says_how_it_is_stopped
    what_cannot_start_is_explained
    the_hosts_users_mean_nothing_in_a_container
    files_may_keep_their_content_elsewhere
    a_container_has_the_devices_it_is_given
    what_is_made_for_a_container_is_roots
    secrets_are_files_of_the_user_alone
}

async fn the_user_is_the_containers_own(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    let etc = fixture.image().join("etc");
    std::fs::create_dir(&etc).unwrap();
    std::fs::write(etc.join("passwd"), "ml:x:4321:4322::/home/ml:/bin/sh\n").unwrap();
    std::fs::write(etc.join("group"), "ml:x:4322:\nvideo:x:44:ml\n").unwrap();
    let mut node = Node::start(&fixture);
    let users = [
        ("ml", "4321", "4322", "44 4322", "/home/ml"),
        ("4321:44", "4321", "44", "44", "/home/ml"),
        ("9999", "9999", "0", "0", "/"),
    ];
    for (number, (name, uid, gid, groups, home)) in (1..).zip(users) {
        let mut spec = fixture.spec(number, Program::Serves);
        spec.listen = if number == 2 { Listen::UnixSocket } else { Listen::Port };
        spec.container.as_mut().unwrap().user = ContainerUser::Named(name.to_owned());
        let address = node.bring_up(&spec).await;
        let (_, status) = get(&address, "/status").await.unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(field("Uid:"), [uid; 4]);
        assert_eq!(field("Gid:"), [gid; 4]);
        assert_eq!(field("Groups:").join(" "), groups);
        assert_eq!(field("CapEff:"), ["0000000000000000"]);
        assert_eq!(field("NoNewPrivs:"), ["1"]);
        assert_eq!(field("Seccomp:"), ["2"]);
        let (_, environment) = get(&address, "/env").await.unwrap();
        assert!(environment.lines().any(|line| line == format!("HOME={home}")), "{environment}");
        node.clear(spec.id).await;
    }
    leaves_nothing(&fixture).await;
}

async fn two_containers_listen_on_the_same_port(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    let mut node = Node::start(&fixture);
    for number in 1..=2 {
        let spec = fixture.spec(number, Program::Serves);
        let address = node.bring_up(&spec).await;
        assert!(matches!(address, RunnerAddress::InNamespace { port: 8080, .. }), "{address}");
        assert_eq!(get(&address, "/x").await.unwrap().0, 200);
    }
    for sequence in 1..=2 {
        node.clear(fixture.spec(sequence, Program::Serves).id).await;
    }
    leaves_nothing(&fixture).await;
}

async fn the_hosts_network_is_the_hosts(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    let mut node = Node::start(&fixture);
    let mut spec = fixture.spec(1, Program::Serves);
    spec.container.as_mut().unwrap().network = Network::Host;
    let address = node.bring_up(&spec).await;
    assert!(matches!(address, RunnerAddress::Tcp(_)), "{address}");
    node.clear(spec.id).await;
    leaves_nothing(&fixture).await;
}

async fn a_link_in_place_of_the_socket_is_not_followed(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    let mut node = Node::start(&fixture);
    let mut spec = fixture.spec(1, Program::Serves);
    spec.listen = Listen::UnixSocket;
    let address = node.bring_up(&spec).await;
    assert_eq!(get(&address, "/x").await.unwrap().0, 200);
    let RunnerAddress::UnixInNamespace { path, .. } = &address else { panic!("{address}") };
    let program = fixture.processes(Some(spec.id))[0];
    let inside = PathBuf::from(format!("/proc/{program}/root{}", path.display()));
    std::fs::rename(&inside, inside.with_file_name("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", &inside).unwrap();
    assert_eq!(get(&address, "/x").await, None);
    node.clear(spec.id).await;
    leaves_nothing(&fixture).await;
}

async fn a_killed_supervisor_takes_the_container_along(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    let mut node = Node::start(&fixture);
    let spec = fixture.spec_of(1, &["daemonise", "serve"]);
    node.bring_up(&spec).await;
    // The supervisor comes first: the container's first process is its child.
    let shim = rustix::process::Pid::from_raw(fixture.shims()[0]).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    assert_eq!(node.exited(spec.id).await.cause, ExitCause::Unknown);
    node.backend.forget(spec.id).await.unwrap();
    leaves_nothing(&fixture).await;
}

async fn the_image_says_how_it_is_stopped(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    let mut node = Node::start(&fixture);
    let mut spec = fixture.spec(1, Program::IgnoresTerm);
    spec.container.as_mut().unwrap().stop_signal = libc::SIGINT;
    node.bring_up(&spec).await;
    let mode = StopMode::Graceful { grace: glowplug_runner::conformance::GRACE };
    node.backend.stop(spec.id, mode).await.unwrap();
    assert_eq!(node.exited(spec.id).await.cause, ExitCause::Signal(libc::SIGINT));
    node.backend.forget(spec.id).await.unwrap();
    leaves_nothing(&fixture).await;
}

async fn what_cannot_start_is_explained(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    let mut node = Node::start(&fixture);
    let spec = |number| fixture.spec(number, Program::Serves);
    let (mut program, mut user, mut source) = (spec(1), spec(2), spec(3));
    let (mut target, mut layer, mut device) = (spec(4), spec(5), spec(6));
    program.argv = vec!["no-such-program".to_owned()];
    user.container.as_mut().unwrap().user = ContainerUser::Named("nobody-here".to_owned());
    let bind = |source: &str, target: &str| Bind {
        source: source.into(),
        target: target.into(),
        writes: Writes::Refused,
    };
    source.container.as_mut().unwrap().binds.push(bind("/no/such/place", "/x"));
    target.container.as_mut().unwrap().binds.push(bind("/usr", "/proc/x"));
    layer.container.as_mut().unwrap().root.lower = vec!["/no/such/layer".into()];
    device.container.as_mut().unwrap().devices = vec!["/dev/no-such-device".into()];
    let expected = [
        (program, "was not found"),
        (user, "no user `nobody-here`"),
        (source, "/no/such/place"),
        (target, "outside of /proc"),
        (layer, "layers together"),
        (device, "no device /dev/no-such-device"),
    ];
    for (spec, words) in expected {
        node.ensure(&spec).await;
        match node.exited(spec.id).await.cause {
            ExitCause::SpawnFailed(problem) => assert!(problem.contains(words), "{problem}"),
            other => panic!("{words}: {other:?}"),
        }
        node.backend.forget(spec.id).await.unwrap();
    }
    leaves_nothing(&fixture).await;
}

async fn the_hosts_users_mean_nothing_in_a_container(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    let node = Node::start(&fixture);
    let mut spec = fixture.spec(1, Program::Serves);
    spec.user = Some("65534".to_owned());
    let refused = node.backend.ensure(&spec).await;
    assert!(matches!(refused, Err(BackendError::Prepare { .. })), "{refused:?}");
    leaves_nothing(&fixture).await;
}

/// Runs a command of the host's system in the container, and returns what it says.
async fn said_by(fixture: &ProcessFixture, spec: RunnerSpec) -> Vec<String> {
    let mut node = Node::start(fixture);
    node.ensure(&spec).await;
    node.spawned(spec.id).await;
    let exit = node.exited(spec.id).await;
    node.backend.forget(spec.id).await.unwrap();
    exit.log_tail
}

async fn files_may_keep_their_content_elsewhere(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    let objects = fixture.path().join("objects");
    std::fs::create_dir_all(objects.join("ab")).unwrap();
    std::fs::write(objects.join("ab/cdef"), "from an object\n").unwrap();
    let file = fixture.image().join("large");
    std::fs::File::create(&file).unwrap().set_len(15).unwrap();
    let none = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&file, "trusted.overlay.metacopy", b"", none).unwrap();
    rustix::fs::setxattr(&file, "trusted.overlay.redirect", b"/ab/cdef", none).unwrap();
    let mut spec = fixture.spec(1, Program::Serves);
    spec.container.as_mut().unwrap().root.data = vec![objects.clone()];
    spec.argv = ["/bin/sh", "-c", "cat /large; echo more >> /large; cat /large; ls /"]
        .map(str::to_owned)
        .to_vec();
    let said = said_by(&fixture, spec).await;
    assert_eq!(said[..3], ["from an object", "from an object", "more"], "{said:?}");
    assert!(!said.contains(&"ab".to_owned()), "objects have no names of their own: {said:?}");
    let object = std::fs::read_to_string(objects.join("ab/cdef")).unwrap();
    assert_eq!(object, "from an object\n", "what is shared is not written to");
    leaves_nothing(&fixture).await;
}

async fn a_container_has_the_devices_it_is_given(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    let mut spec = fixture.spec(1, Program::Serves);
    let extra = "/dev/fuse";
    if !std::path::Path::new(extra).exists() {
        println!("skipped: this host has no {extra}");
        return;
    }
    spec.container.as_mut().unwrap().devices = vec![extra.into()];
    let script = "echo x > /dev/null && head -c 4 /dev/urandom | wc -c && cd /dev && ls -d * pts/*";
    spec.argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let mut said = said_by(&fixture, spec).await;
    // Runtimes add a link to what no container can open.
    said.retain(|name| name != "core");
    assert_eq!(
        said.join(" "),
        "4 fd full fuse mqueue null ptmx pts pts/ptmx random shm stderr stdin stdout tty urandom zero"
    );
    leaves_nothing(&fixture).await;
}

async fn what_is_made_for_a_container_is_roots(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    let mut spec = fixture.spec(1, Program::Serves);
    let container = spec.container.as_mut().unwrap();
    container.user = ContainerUser::Ids { uid: 65534, gid: 65534, groups: vec![] };
    container.binds.push(Bind {
        source: "/etc/hostname".into(),
        target: "/made/for/it".into(),
        writes: Writes::Refused,
    });
    // All that this user may write to, but for what is everybody's.
    let script = "find / -xdev ! -type l -writable; find /dev /etc /made /work -writable ! -type l; \
                  stat -c %a /dev/null /dev/shm";
    spec.argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let mut said = said_by(&fixture, spec).await;
    said.retain(|line| !line.starts_with("find: "));
    said.sort_unstable();
    assert_eq!(
        said.join(" "),
        "/dev/full /dev/mqueue /dev/null /dev/pts/ptmx /dev/random /dev/shm /dev/tty /dev/urandom \
         /dev/zero /run/glowplug 1777 666"
    );
    leaves_nothing(&fixture).await;
}

async fn secrets_are_files_of_the_user_alone(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    let mut spec = fixture.spec(1, Program::Serves);
    let files = BTreeMap::from([("TOKEN".to_owned(), "hunter2".to_owned())]);
    let container = spec.container.as_mut().unwrap();
    container.secrets = Some(SecretFiles { dir: "/run/secrets".into(), files });
    container.user = ContainerUser::Ids { uid: 4321, gid: 4321, groups: vec![] };
    assert!(!format!("{spec:?}").contains("hunter2"));
    let script = "cd /run/secrets && cat TOKEN && echo && stat -c '%a %u' TOKEN . && stat -f -c %T . && \
                  touch new 2> /dev/null || echo refused; env | grep -c hunter2";
    spec.argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let node = fixture.open();
    let mut node = Node::start_with(node);
    node.ensure(&spec).await;
    node.spawned(spec.id).await;
    let exit = node.exited(spec.id).await;
    assert_eq!(exit.log_tail, ["hunter2", "400 4321", "500 4321", "tmpfs", "refused", "0"]);
    let dir = fixture.runner_dir(spec.id);
    for file in std::fs::read_dir(dir).unwrap().flatten() {
        let text = std::fs::read_to_string(file.path()).unwrap_or_default();
        let is_log = file.file_name() == "log";
        assert!(is_log || !text.contains("hunter2"), "{}", file.path().display());
    }
    node.backend.forget(spec.id).await.unwrap();
    leaves_nothing(&fixture).await;
}
