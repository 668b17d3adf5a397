//! Apps whose images are built here, by the real `buildah`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use glowplug_testkit::{data_dir_with_python_apps, eventually, processes_with};
use serde_json::json;
use tempfile::TempDir;

use crate::ground::{Ground, busybox};

const BUILT: Duration = Duration::from_mins(3);
/// Serves what is in its folder; the second step is run while it is built.
const DOCKERFILE: &str = "FROM scratch\n\
    COPY busybox /bin/busybox\n\
    COPY index.html /www/index.html\n\
    RUN [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox uname -s > /www/system\"]\n\
    EXPOSE 8000\n\
    CMD [\"/bin/busybox\", \"httpd\", \"-f\", \"-p\", \"8000\", \"-h\", \"/www\"]\n";
/// A class in a container of its own, with what its packages and the image bring.
const CLASS: &str = r#"
import fal
from fal.container import ContainerImage

DOCKERFILE = """
FROM scratch
ADD python.tar /
COPY greeting.txt /greeting.txt
ENV PATH=/usr/local/bin:/usr/bin:/bin FROM_IMAGE=yes
WORKDIR /work
"""


class Boxed(fal.App, image=ContainerImage.from_dockerfile_str(DOCKERFILE)):
    def setup(self):
        import os

        with open("/greeting.txt") as file:
            self.greeting = file.read().strip()
        self.found = sorted(os.listdir("/"))

    @fal.endpoint("/")
    def greet(self) -> dict:
        import os
        import platform

        return {
            "greeting": self.greeting,
            "from_image": os.environ.get("FROM_IMAGE"),
            "dir": os.getcwd(),
            "host": platform.node(),
            "found": self.found,
        }
"#;

/// `buildah` where tests find it, and a home where it finds that images need no signature.
struct Buildah {
    folder: TempDir,
}

impl Buildah {
    /// `None` where it is missing, and says so.
    fn new() -> Option<Self> {
        let named = std::env::var_os("GLOWPLUG_TEST_BUILDAH");
        let program = named.map_or("/usr/bin/buildah".into(), PathBuf::from);
        if !rustix::process::geteuid().is_root() || !program.exists() {
            println!("skipped: building needs root and buildah: `cargo xtask test` fetches it");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join(".config/containers");
        fs::create_dir_all(&config).unwrap();
        let policy = json!({"default": [{"type": "insecureAcceptAnything"}]});
        fs::write(config.join("policy.json"), policy.to_string()).unwrap();
        // Unpacked from its package it finds its libraries beside it.
        let root = program.ancestors().nth(3).unwrap();
        let libraries = root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
        let script = format!(
            "#!/bin/sh\nexport LD_LIBRARY_PATH={}\nexec {} \"$@\"\n",
            libraries.display(),
            program.display()
        );
        let place = folder.path().join("buildah");
        fs::write(&place, script).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
        Some(Self { folder })
    }

    /// With no other `buildah` on PATH.
    fn env_alone(&self) -> Vec<(String, String)> {
        let unshare = self.folder.path().join("unshare");
        if !unshare.exists() {
            std::os::unix::fs::symlink("/usr/bin/unshare", unshare).unwrap();
        }
        self.env_with(OsString::from(self.folder.path()))
    }

    fn env(&self) -> Vec<(String, String)> {
        let mut path = OsString::from(self.folder.path());
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        self.env_with(path)
    }

    fn env_with(&self, path: OsString) -> Vec<(String, String)> {
        vec![
            ("PATH".to_owned(), path.into_string().unwrap()),
            ("HOME".to_owned(), self.folder.path().display().to_string()),
        ]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dockerfile_is_built_once_for_what_it_says() {
    let (Some(buildah), Some(busybox)) = (Buildah::new(), busybox()) else { return };
    let project = tempfile::tempdir().unwrap();
    fs::write(project.path().join("Dockerfile"), DOCKERFILE).unwrap();
    fs::write(project.path().join("busybox"), busybox).unwrap();
    fs::set_permissions(project.path().join("busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(project.path().join("index.html"), "one\n").unwrap();
    let config = format!("[apps.app]\nimage = \"build:{}\"\n", project.path().display());
    let mut node = Ground::start_with(&config, buildah.env_alone(), None);
    assert_eq!(node.ask("app").await, (200, "one\n".to_owned()), "{}", node.served.log());
    assert_eq!(node.get_text("/run/local/app/system").await, (200, "Linux\n".to_owned()));
    let first = node.get("/api/v1/images").await;
    assert_eq!(first.as_array().unwrap().len(), 1, "{first}");
    assert_eq!(first[0]["apps"], json!(["local/app"]));
    let builds = node.served.data_dir().join("builds");
    assert!(!builds.join("unfinished").exists(), "what was built is in the store alone");

    // The same again: nothing is built, so that it would not matter if buildah were gone.
    node.served.kill();
    fs::remove_file(buildah.folder.path().join("buildah")).unwrap();
    node.served.start_again().unwrap();
    assert_eq!(node.ask("app").await, (200, "one\n".to_owned()));
    assert_eq!(node.get("/api/v1/images").await[0]["digest"], first[0]["digest"]);

    // Something else: it would have to be built.
    node.served.kill();
    fs::write(project.path().join("index.html"), "two\n").unwrap();
    node.served.start_again().unwrap();
    let told = eventually("the app is broken", BUILT, || async {
        let (status, told) = node.ask("app").await;
        (status == 503).then_some(told)
    })
    .await;
    assert!(told.contains("buildah") && told.contains("apt-get install"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_fails_is_told_with_its_words() {
    let Some(buildah) = Buildah::new() else { return };
    let project = tempfile::tempdir().unwrap();
    fs::write(project.path().join("Dockerfile"), "FROM scratch\nCOPY nothing.txt /\n").unwrap();
    let config = format!("[apps.app]\nimage = \"build:{}\"\n", project.path().display());
    let node = Ground::start_with(&config, buildah.env(), None);
    let told = eventually("the app is broken", BUILT, || async {
        let (status, told) = node.ask("app").await;
        (status == 503).then_some(told)
    })
    .await;
    assert!(told.contains("cannot be built") && told.contains("nothing.txt"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_build_leaves_nothing_and_the_next_one_works() {
    let (Some(buildah), Some(busybox)) = (Buildah::new(), busybox()) else { return };
    let project = tempfile::tempdir().unwrap();
    let slow = DOCKERFILE.replace("/bin/busybox uname -s", "/bin/busybox sleep 600");
    fs::write(project.path().join("Dockerfile"), slow).unwrap();
    fs::write(project.path().join("busybox"), busybox).unwrap();
    fs::set_permissions(project.path().join("busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(project.path().join("index.html"), "one\n").unwrap();
    let config = format!("[apps.app]\nimage = \"build:{}\"\n", project.path().display());
    let mut node = Ground::start_with(&config, buildah.env_alone(), None);
    let step = || processes_with("sleep 600").into_iter().next();
    eventually("the step runs", BUILT, || async { step() }).await;
    let builds = node.served.data_dir().join("builds").display().to_string();
    let builder = processes_with(&builds).into_iter().min().unwrap();
    let builder = rustix::process::Pid::from_raw(i32::try_from(builder).unwrap()).unwrap();
    rustix::process::kill_process(builder, rustix::process::Signal::KILL).unwrap();
    eventually("the app is broken", BUILT, || async {
        (node.ask("app").await.0 == 503).then_some(())
    })
    .await;
    eventually("the step has ended", BUILT, || async { step().is_none().then_some(()) }).await;
    assert_eq!(node.mounts(), [] as [String; 0]);

    fs::write(project.path().join("Dockerfile"), DOCKERFILE).unwrap();
    node.served.stop();
    node.served.start_again().unwrap();
    assert_eq!(node.ask("app").await, (200, "one\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_runs_in_the_container_that_it_asks_for() {
    let Some(buildah) = Buildah::new() else { return };
    let project = tempfile::tempdir().unwrap();
    fs::write(project.path().join("app.py"), CLASS).unwrap();
    fs::write(project.path().join("greeting.txt"), "hello from the context\n").unwrap();
    if !archive_python(&project.path().join("python.tar")) {
        return;
    }
    let cache = std::env::var_os("GLOWPLUG_TEST_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-apps"));
    let data_dir = data_dir_with_python_apps(&cache).unwrap();
    let app = project.path().join("app.py");
    let config = format!("[apps.app]\napp = \"{}::Boxed\"\n", app.display());
    let node = Ground::start_with(&config, buildah.env(), Some(data_dir.path().to_owned()));
    let (status, answer) = node.post("/run/local/app", "{}").await;
    assert_eq!(status, 200, "{answer}\n{}", node.served.log());
    let runner = node.only_runner("app").await;
    assert_eq!(answer["greeting"], "hello from the context");
    assert_eq!((&answer["from_image"], &answer["dir"]), (&json!("yes"), &json!("/work")));
    assert_eq!(answer["host"], runner["id"]);
    let found = answer["found"].as_array().unwrap();
    assert!(found.contains(&json!("greeting.txt")) && !found.contains(&json!("boot")), "{answer}");
    let phases = runner["phases"].as_array().unwrap();
    let imported = phases.iter().any(|phase| phase["name"] == "setup/unpickled");
    assert!(imported, "the launcher tells its stages from inside: {runner}");
}

/// This machine's Python, with the libraries that it needs, as an archive for an image. `false` where it cannot
/// be had, and says so.
fn archive_python(archive: &Path) -> bool {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/python/archive.py");
    #[expect(clippy::disallowed_methods, reason = "a tool that ends by itself")]
    let done = Command::new("python3").arg(script).arg(archive).output();
    let is_made = done.as_ref().is_ok_and(|done| done.status.success());
    if !is_made {
        println!("skipped: Python cannot be packed: {done:?}");
    }
    is_made
}
