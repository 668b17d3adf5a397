//! A node that serves the app of these tests under several names.

use std::path::{Path, PathBuf};
use std::process::Command;

use glowplug_testkit::{Served, ServedOptions, data_dir_with_python_apps};
use serde_json::Value;
use tempfile::TempDir;

/// What a caller of an open node may send as a key.
const ANY_KEY: &str = "any:key";

pub(crate) struct Node {
    pub(crate) served: Served,
    pub(crate) key: String,
    /// Was good once.
    pub(crate) revoked_key: String,
    // Lives as long as the node that works in it.
    _data_dir: TempDir,
}

/// A node without keys, which serves everyone.
pub(crate) fn open_node() -> Node {
    Node::start()
}

impl Node {
    fn start() -> Self {
        let cache = std::env::var_os("GLOWPLUG_TEST_CACHE").map(PathBuf::from);
        let cache =
            cache.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-apps"));
        let data_dir = data_dir_with_python_apps(&cache).unwrap();
        let served = Served::start(ServedOptions {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_glowplug")),
            config: config(),
            env: Vec::new(),
            data_dir: Some(data_dir.path().to_owned()),
        })
        .unwrap();
        let (key, revoked_key) = (ANY_KEY.to_owned(), ANY_KEY.to_owned());
        Self { served, key, revoked_key, _data_dir: data_dir }
    }

    /// A node that knows its callers.
    pub(crate) fn with_keys() -> Self {
        let mut node = Self::start();
        let admin = node.create_key("ADMIN", None);
        node.key = node.create_key("API", Some(&admin));
        node.revoked_key = node.create_key("API", Some(&admin));
        let (id, _) = node.revoked_key.split_once(':').unwrap();
        node.command(&["keys", "revoke", id], Some(&admin));
        node
    }

    fn create_key(&self, scope: &str, admin: Option<&str>) -> String {
        let key = self.command(&["keys", "create", "--scope", scope], admin);
        format!("{}:{}", key["id"].as_str().unwrap(), key["secret"].as_str().unwrap())
    }

    fn command(&self, arguments: &[&str], key: Option<&str>) -> Value {
        #[expect(clippy::disallowed_methods, reason = "the command under test")]
        let output = Command::new(env!("CARGO_BIN_EXE_glowplug"))
            .args(["--json", "--server", &self.served.url("")])
            .args(arguments)
            .envs(key.map(|key| ("GLOWPLUG_KEY", key)))
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// `me/app` takes several requests at a time, `me/single` one, `me/brief` not for long, `me/open` may be
/// called by everyone, and `me/plain` is no Python app.
fn config() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let app = folder.join("app.py").display().to_string();
    let server = folder.join("server.py").display().to_string();
    format!(
        r#"
        [node.webhooks]
        allow = ["127.0.0.1"]

        [apps."me/app"]
        app = "{app}::Clients"
        max_multiplexing = 8

        [apps."me/single"]
        app = "{app}::Clients"

        [apps."me/brief"]
        app = "{app}::Clients"
        request_timeout = 2

        [apps."me/open"]
        app = "{app}::Clients"
        access = "public"

        [apps."me/plain"]
        command = ["python3", "{server}"]
        "#
    )
}
