//! Apps that are container images, through the real binary: from a real registry to an answer, and away again.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says why")]

mod built;
mod ground;
mod keeping;
mod late;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use glowplug_testkit::eventually;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use self::ground::{Ground, Server};

const SOON: Duration = Duration::from_secs(40);

fn was_pulled(runner: &Value) -> bool {
    runner["phases"].as_array().unwrap().iter().any(|phase| phase["name"] == "docker_pull")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_pulled_once_and_served_until_nobody_wants_it() {
    let Some(server) = Server::new() else { return };
    let image = server.push("app:1").await;
    let mut node = Ground::start(&format!("[apps.app]\nimage = \"{image}\"\nkeep_alive = 1\n"));
    assert_eq!(node.ask("app").await, (200, "one\n".to_owned()));
    let first = node.only_runner("app").await;
    assert!(was_pulled(&first), "{first}");
    node.wait_until_cold("app").await;

    // From here on the image is on the disk, and the registry is not needed, not even at a start of the node.
    drop(server);
    node.served.kill();
    node.served.start_again().unwrap();
    assert_eq!(node.ask("app").await, (200, "one\n".to_owned()));
    let second = node.only_runner("app").await;
    assert!(!was_pulled(&second), "{second}");

    let images = node.get("/api/v1/images").await;
    let digest = images[0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(images[0]["apps"], serde_json::json!(["local/app"]), "{images}");
    node.wait_until_cold("app").await;
    assert_eq!(node.delete(&format!("/api/v1/images/{digest}")).await, 204);
    assert_eq!(node.get("/api/v1/images").await, serde_json::json!([]));
    assert_eq!(node.served.stop(), Some(0), "{}", node.served.log());
    assert_eq!(node.mounts(), [] as [String; 0]);
}

/// Passes connections on once it is told to, and breaks them until then.
async fn gate(to: String, is_open: Arc<AtomicBool>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            if is_open.load(Ordering::Relaxed) {
                let mut registry = TcpStream::connect(&to).await.unwrap();
                tokio::spawn(async move {
                    tokio::io::copy_bidirectional(&mut caller, &mut registry).await
                });
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_late_is_asked_again() {
    let Some(server) = Server::new() else { return };
    let image = server.push("app:1").await;
    let (registry, path) = image.split_once('/').unwrap();
    let is_open = Arc::new(AtomicBool::new(false));
    let gate = gate(registry.to_owned(), is_open.clone()).await;
    let mut node = Ground::start(&format!("[apps.app]\nimage = \"{gate}/{path}\"\n"));
    let told = || async {
        let (status, said) = node.ask("app").await;
        (status != 200 && said.contains("it is asked again in")).then_some(())
    };
    eventually("callers are told", SOON, told).await;
    is_open.store(true, Ordering::Relaxed);
    let served = || async { (node.ask("app").await == (200, "one\n".to_owned())).then_some(()) };
    eventually("the app serves", SOON, served).await;
    assert_eq!(node.served.stop(), Some(0), "{}", node.served.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_can_be_watched_and_held_back() {
    let Some(server) = Server::new() else { return };
    let image = server.push("app:1").await;
    let node = Ground::start(&format!(
        "[node.images]\nbytes_per_second_max = \"256KiB\"\n[apps.app]\nimage = \"{image}\"\n"
    ));
    let watched = eventually("the pull is seen half-way", SOON, || async {
        let runners = node.get("/api/v1/runners?app=local/app").await;
        let pull = &runners.get(0)?["pull"];
        let (bytes, total) = (pull["bytes"].as_u64()?, pull["total_bytes"].as_u64()?);
        (0 < bytes && bytes < total).then(|| runners[0].clone())
    });
    let (answer, watched) = tokio::join!(node.ask("app"), watched);
    assert_eq!(answer, (200, "one\n".to_owned()));
    assert_eq!(watched["state"], "DOCKER_PULL", "{watched}");
    let pull = node.only_runner("app").await["pull"].take();
    assert_eq!(pull["bytes"], pull["total_bytes"], "{pull}");
    assert_eq!((&pull["layers"], &pull["known_bytes"]), (&Value::from(1), &Value::from(0)));
    // A second's worth may come at once.
    let (bytes, rate) =
        (pull["bytes"].as_u64().unwrap(), pull["bytes_per_second"].as_u64().unwrap());
    assert!(bytes > 512 << 10 && rate < 512 << 10, "{pull}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_outlives_a_killed_node() {
    let Some(server) = Server::new() else { return };
    let image = server.push("app:1").await;
    let mut node = Ground::start(&format!("[apps.app]\nimage = \"{image}\"\nkeep_alive = 60\n"));
    assert_eq!(node.ask("app").await.0, 200);
    let before = node.only_runner("app").await;
    let digest = node.get("/api/v1/images").await[0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(node.delete(&format!("/api/v1/images/{digest}")).await, 409, "it is in use");

    node.served.kill();
    node.served.start_again().unwrap();
    assert_eq!(node.ask("app").await, (200, "one\n".to_owned()));
    let after = node.only_runner("app").await;
    assert_eq!(after["id"], before["id"]);
    assert_eq!(node.delete(&format!("/api/v1/images/{digest}")).await, 409, "it still is");
    assert_eq!(node.served.stop(), Some(0), "{}", node.served.log());
    assert_eq!(node.mounts(), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oci_runtime_can_make_the_container() {
    let Some(server) = Server::new() else { return };
    let image = server.push("app:1").await;
    for runtime in ["runc", "crun"] {
        if let Err(why) = glowplug_runner::host::runtime(runtime) {
            println!("skipped: {why}");
            continue;
        }
        let config = format!(
            "[node]\nruntime = \"{runtime}\"\n[apps.app]\nimage = \"{image}\"\nkeep_alive = 60\n"
        );
        let mut node = Ground::start(&config);
        assert_eq!(node.ask("app").await, (200, "one\n".to_owned()), "{runtime}");
        let before = node.only_runner("app").await;
        let (_, seen) = node.get_text("/run/local/app/cgi-bin/look").await;
        for expected in ["who=image", "interfaces=lo", "dir=/www", "user=1000", "etc=passwd"] {
            assert!(seen.lines().any(|line| line == expected), "{runtime} {expected}: {seen}");
        }
        node.served.kill();
        node.served.start_again().unwrap();
        assert_eq!(node.ask("app").await, (200, "one\n".to_owned()), "{runtime}");
        assert_eq!(node.only_runner("app").await["id"], before["id"], "{runtime}");
        assert_eq!(node.served.stop(), Some(0), "{}", node.served.log());
        assert_eq!(node.mounts(), [] as [String; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_is_not_there_is_named() {
    let Some(server) = Server::new() else { return };
    let image = server.push("app:1").await;
    let config = format!("[apps.app]\nimage = \"{image}\"\nruntime = \"/no/such/runtime\"\n");
    let node = Ground::start(&config);
    let (status, said) = node.ask("app").await;
    assert_eq!(status, 503, "{said}");
    assert!(said.contains("/no/such/runtime is no program"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_container_is_given_is_there() {
    let Some(server) = Server::new() else { return };
    let image = server.push("app:1").await;
    let models = tempfile::tempdir().unwrap();
    fs::write(models.path().join("weights"), "weights\n").unwrap();
    fs::write(models.path().join("token"), "hunter2\n").unwrap();
    let script = "echo kept >> /data/kept; (cat /data/kept /models/weights /run/secrets/TOKEN; echo; \
                  echo $HF_HOME $XDG_CACHE_HOME; touch /models/x || echo refused) > /tmp/said; \
                  exec busybox httpd -f -p $PORT -h /tmp";
    let models_dir = models.path().display();
    let config = format!(
        "[apps.app]\nimage = \"{image}\"\nkeep_alive = 1\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]\n\
         data = true\nmounts = [\"{models_dir}:/models:ro\"]\nsecret_files = \"/run/secrets\"\n\
         secrets = {{ TOKEN = \"file:{models_dir}/token\" }}\nenv = {{ XDG_CACHE_HOME = \"/own\" }}\n"
    );
    let node = Ground::start(&config);
    let expected =
        |kept: &str| format!("{kept}weights\nhunter2\n/data/.cache/huggingface /own\nrefused\n");
    let said = node.get_text("/run/local/app/said").await;
    assert_eq!(said, (200, expected("kept\n")));
    node.wait_until_cold("app").await;
    let said = node.get_text("/run/local/app/said").await;
    assert_eq!(said, (200, expected("kept\nkept\n")), "data outlives a runner");
    let kept = node.served.data_dir().join("data/local/kept");
    assert_eq!(fs::read_to_string(kept).unwrap(), "kept\nkept\n");
    assert!(!node.served.log().contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_sees_itself_and_nothing_else() {
    let Some(server) = Server::new() else { return };
    let image = server.push("app:1").await;
    let node =
        Ground::start(&format!("[apps.app]\nimage = \"{image}\"\nenv = {{ WHO = \"me\" }}\n"));
    let (status, seen) = node.get_text("/run/local/app/cgi-bin/look").await;
    assert_eq!(status, 200, "{seen}");
    let runner = node.only_runner("app").await["id"].as_str().unwrap().to_owned();
    for expected in [
        format!("host={runner}"),
        "who=me".to_owned(),
        "from=image".to_owned(),
        "interfaces=lo".to_owned(),
        "dir=/www".to_owned(),
        "user=1000".to_owned(),
        "etc=passwd".to_owned(),
    ] {
        assert!(seen.lines().any(|line| line == expected), "{expected} is not in:\n{seen}");
    }
    let processes = seen.lines().find_map(|line| line.strip_prefix("processes=")).unwrap();
    assert!(processes.parse::<u32>().unwrap() < 10, "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_does_not_exist_is_told_by_its_name() {
    let Some(server) = Server::new() else { return };
    let missing = server.name("missing:1");
    let node = Ground::start(&format!("[apps.app]\nimage = \"{missing}\"\n"));
    let (status, told) = eventually("the app is known to be broken", SOON, || async {
        let answer = node.ask("app").await;
        (answer.0 == 503).then_some(answer)
    })
    .await;
    assert!(told.contains(&missing) && told.contains("docker login"), "{status}: {told}");
    // Nothing was begun for it.
    let images = node.served.data_dir().join("images/images");
    assert_eq!(fs::read_dir(images).map_or(0, Iterator::count), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_first_start_touches_is_kept() {
    let Some(server) = Server::new() else { return };
    let image = server.push("app:1").await;
    let mut node = Ground::start(&format!("[apps.app]\nimage = \"{image}\"\nkeep_alive = 1\n"));
    assert_eq!(node.ask("app").await, (200, "one\n".to_owned()));
    let folder = node.served.data_dir().join("images");
    eventually("the list is written", SOON, || async {
        let lists = fs::read_dir(folder.join("touched")).ok()?;
        (lists.count() == 1).then_some(())
    })
    .await;
    let digest = node.get("/api/v1/images").await[0]["digest"].as_str().unwrap().to_owned();
    node.wait_until_cold("app").await;
    // A second start finds the list, and makes no other.
    let list = folder.join("touched").join(digest.strip_prefix("sha256:").unwrap());
    let written = fs::metadata(&list).unwrap().modified().unwrap();
    assert_eq!(node.ask("app").await.0, 200);
    assert_eq!(node.served.stop(), Some(0), "{}", node.served.log());
    assert_eq!(fs::metadata(&list).unwrap().modified().unwrap(), written);
    let store = glowplug_image::Store::open(&folder).unwrap();
    let touched = store.touched_by(&digest.parse().unwrap(), "local/app").unwrap().unwrap();
    let paths: Vec<_> = touched.files().iter().map(|file| file.path.as_slice()).collect();
    // The page is asked for as soon as it is ready, which may be before the recording has heard of that.
    let (first, rest) = paths.split_first().unwrap();
    assert_eq!(*first, b"bin/busybox");
    assert!(rest.is_empty() || rest == [b"www/index.html"], "{rest:?}");
}
