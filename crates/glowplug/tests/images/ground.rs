//! A registry with one small image, and a node that runs it.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use glowplug_testkit::{
    Access, OwnRegistry, Served, ServedOptions, TableFormat, TableLayer, eventually,
};
use oci_client::client::{ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(40);
/// Says what the world looks like from inside.
const LOOK: &str = "#!/bin/sh\n\
    echo 'content-type: text/plain'\n\
    echo\n\
    echo host=$(hostname)\n\
    echo who=$WHO\n\
    echo from=$FROM\n\
    echo interfaces=$(ls /sys/class/net)\n\
    echo dir=$(cat /tmp/dir)\n\
    echo user=$(id -u)\n\
    echo etc=$(ls /etc | grep -v -e hosts -e hostname -e resolv.conf)\n\
    echo processes=$(ls /proc | grep -c '^[0-9]')\n";

/// A registry, and a program that fits into an image without anything else.
pub(crate) struct Server {
    registry: OwnRegistry,
    busybox: Vec<u8>,
}

impl Server {
    /// `None` where something is missing, and says so.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can make containers");
            return None;
        }
        let busybox = busybox()?;
        Some(Self { registry: OwnRegistry::start(Access::Everybody)?, busybox })
    }

    pub(crate) fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.registry.address())
    }

    /// Puts an image there that serves `/index.html` and `/cgi-bin/look`.
    pub(crate) async fn push(&self, image: &str) -> String {
        self.push_with(image, &[]).await
    }

    /// As [`push`](Self::push), with a layer more that has these bytes as `/model`.
    pub(crate) async fn push_with(&self, image: &str, model: &[u8]) -> String {
        let name = self.name(image);
        let reference: Reference = name.parse().unwrap();
        let config = ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() };
        let mut layers = vec![ImageLayer::oci_v1_gzip(gzip(&self.archive()), None)];
        if !model.is_empty() {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(model.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, "model", model).unwrap();
            layers.push(ImageLayer::oci_v1_gzip(gzip(&builder.into_inner().unwrap()), None));
        }
        let about = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {
                "Cmd": ["/bin/sh", "-c", "pwd > /tmp/dir; exec /bin/busybox httpd -f -p $PORT -h /www"],
                "Env": ["PATH=/bin", "FROM=image", "WHO=image"],
                "ExposedPorts": {"8000/tcp": {}},
                "User": "app",
                "WorkingDir": "/www"
            },
            "rootfs": {"type": "layers", "diff_ids": []}
        });
        let about = Config::oci_v1(about.to_string().into_bytes(), None);
        let client = Client::new(config);
        client.push(&reference, &layers, about, &RegistryAuth::Anonymous, None).await.unwrap();
        name
    }

    /// Puts an image there whose layer says what is in it; `files` are beside what serves them, below `/www`.
    pub(crate) async fn push_with_table(
        &self,
        image: &str,
        format: TableFormat,
        files: &[(&str, &[u8])],
    ) -> String {
        let name = self.name(image);
        let reference: Reference = name.parse().unwrap();
        let mut all: Vec<(&str, &[u8])> = vec![
            ("bin/", b""),
            ("bin/busybox", &self.busybox),
            ("bin/sh->busybox", b""),
            ("www/", b""),
            ("www/index.html", b"one\n"),
        ];
        all.extend(files);
        let layer = TableLayer::new(format, &all);
        let layer = ImageLayer::new(layer.bytes, layer.kind.to_owned(), Some(layer.annotations));
        let about = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {
                "Cmd": ["/bin/busybox", "httpd", "-f", "-p", "8000", "-h", "/www"],
                "ExposedPorts": {"8000/tcp": {}},
            },
            "rootfs": {"type": "layers", "diff_ids": []}
        });
        let about = Config::oci_v1(about.to_string().into_bytes(), None);
        let protocol = ClientProtocol::Http;
        let client = Client::new(ClientConfig { protocol, ..ClientConfig::default() });
        client.push(&reference, &[layer], about, &RegistryAuth::Anonymous, None).await.unwrap();
        name
    }

    fn archive(&self) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, mode: u32, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(0);
            builder.append_data(&mut header, name, content).unwrap();
        };
        add("bin/busybox", 0o755, &self.busybox);
        add("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\napp:x:1000:1000::/www:/bin/sh\n");
        add("www/index.html", 0o644, b"one\n");
        add("www/cgi-bin/look", 0o755, LOOK.as_bytes());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o1777);
        header.set_uid(0);
        header.set_gid(0);
        builder.append_data(&mut header, "tmp/", &[][..]).unwrap();
        for name in ["sh", "cat", "hostname", "ls", "id", "grep"] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            header.set_uid(0);
            header.set_gid(0);
            builder.append_link(&mut header, format!("bin/{name}"), "busybox").unwrap();
        }
        builder.into_inner().unwrap()
    }
}

/// A program that needs nothing else. `None` where it is missing, and says so.
pub(crate) fn busybox() -> Option<Vec<u8>> {
    let busybox =
        std::env::var_os("GLOWPLUG_TEST_BUSYBOX").map_or("/bin/busybox".into(), PathBuf::from);
    let found = fs::read(&busybox).ok();
    if found.is_none() {
        println!("skipped: there is no {}: `cargo xtask test` fetches it", busybox.display());
    }
    found
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) struct Ground {
    pub(crate) served: Served,
    client: reqwest::Client,
}

impl Ground {
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, Vec::new(), None)
    }

    pub(crate) fn start_with(
        config: &str,
        env: Vec<(String, String)>,
        data_dir: Option<PathBuf>,
    ) -> Self {
        let served = Served::start(ServedOptions {
            binary: env!("CARGO_BIN_EXE_glowplug").into(),
            config: config.to_owned(),
            env,
            data_dir,
        });
        let client = reqwest::Client::builder().timeout(Duration::from_mins(2)).build().unwrap();
        Self { served: served.unwrap(), client }
    }

    /// Status and body of the image's page.
    pub(crate) async fn ask(&self, app: &str) -> (u16, String) {
        self.get_text(&format!("/run/local/{app}/index.html")).await
    }

    pub(crate) async fn get_bytes(&self, path: &str) -> (u16, Vec<u8>) {
        let answer = self.client.get(self.served.url(path)).send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
    }

    pub(crate) async fn get_text(&self, path: &str) -> (u16, String) {
        let answer = self.client.get(self.served.url(path)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, text) = self.get_text(path).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &'static str) -> (u16, Value) {
        let answer = self.client.post(self.served.url(path)).body(body).send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) async fn delete(&self, path: &str) -> u16 {
        self.client.delete(self.served.url(path)).send().await.unwrap().status().as_u16()
    }

    pub(crate) async fn only_runner(&self, app: &str) -> Value {
        let runners = self.get(&format!("/api/v1/runners?app=local/{app}")).await;
        assert_eq!(runners.as_array().unwrap().len(), 1, "{runners}");
        runners[0].clone()
    }

    pub(crate) async fn wait_until_cold(&self, app: &str) {
        let path = format!("/api/v1/runners?app=local/{app}");
        eventually("the app has no runner", SOON, || async {
            (self.get(&path).await == json!([])).then_some(())
        })
        .await;
    }

    /// What a command of the real binary says on the node's data directory, as JSON, and its exit code.
    pub(crate) async fn command(&self, arguments: &[&str]) -> (i32, Value) {
        let config = self.served.folder().join("glowplug.toml");
        #[expect(clippy::disallowed_methods, reason = "the test is about the program")]
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_glowplug"));
        command.arg("--json").arg("--config").arg(config).args(arguments);
        command.env("GLOWPLUG_DATA_DIR", self.served.data_dir());
        command.env("GLOWPLUG_LISTEN", self.served.address().to_string());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        let value = serde_json::from_str(&said).unwrap_or_else(|_| Value::String(told.to_string()));
        (output.status.code().unwrap(), value)
    }

    /// What is mounted below the node's folder.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let folder = self.served.folder().display().to_string();
        let table = fs::read_to_string("/proc/self/mounts").unwrap();
        table.lines().filter(|line| line.contains(&folder)).map(str::to_owned).collect()
    }
}
