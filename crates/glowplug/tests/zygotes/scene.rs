//! A node with one app, and what is seen of its runners and zygotes from outside.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use glowplug_testkit::{
    Served, ServedOptions, data_dir_with_python_apps, processes_with, wait_until,
};
use serde_json::Value;
use tempfile::TempDir;

/// For whatever should happen soon, on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_mins(1);
/// Told by `glowplug why` of a start that was forked.
pub(crate) const FORKED: &str = "from a zygote";

pub(crate) struct Scene {
    pub(crate) served: Served,
    client: reqwest::Client,
    data_dir: TempDir,
}

/// A node that serves `class` of `app.py` as `local/app`. `settings` are its own, `node` is all that stands
/// before them.
pub(crate) fn start(class: &str, node: &str, settings: &str, env: &[(&str, &str)]) -> Scene {
    let program = format!("app = '{}::{class}'", file("app.py").display());
    start_program(&program, node, settings, env)
}

/// A node that serves `command.py`.
pub(crate) fn start_command(settings: &str) -> Scene {
    start_with_zygote("'zygote'", settings)
}

/// With these arguments to the program that is its zygote.
pub(crate) fn start_with_zygote(arguments: &str, settings: &str) -> Scene {
    start_file_with_zygote(&file("command.py"), arguments, settings)
}

/// With a copy of `command.py`.
pub(crate) fn start_file_with_zygote(file: &Path, arguments: &str, settings: &str) -> Scene {
    let file = file.display().to_string();
    let program = format!(
        "command = ['python3', '{file}']\nzygote_command = ['python3', '{file}', {arguments}]"
    );
    start_program(&program, "", settings, &[])
}

pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zygotes").join(name)
}

fn start_program(program: &str, node: &str, settings: &str, env: &[(&str, &str)]) -> Scene {
    let cache = std::env::var_os("GLOWPLUG_TEST_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-apps"));
    let data_dir = data_dir_with_python_apps(&cache).unwrap();
    let machine = if settings.contains("machine_type") { "" } else { "machine_type = 'small'\n" };
    let config = format!(
        "{node}\n[node.resources]\ncpu = 64\n[machine_types.small]\ncpu = 1\nenforce = false\n\
         [apps.app]\n{program}\nsnapshot = 'off'\n{machine}{settings}\n"
    );
    let served = Served::start(ServedOptions {
        binary: env!("CARGO_BIN_EXE_glowplug").into(),
        config,
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        data_dir: Some(data_dir.path().to_owned()),
    })
    .unwrap();
    let client = reqwest::Client::builder().timeout(Duration::from_mins(5)).build().unwrap();
    Scene { served, client, data_dir }
}

impl Scene {
    /// Calls the app; its answer must be good.
    pub(crate) async fn call(&self, path: &str) -> Value {
        let (status, body) = self.try_call(path).await;
        assert_eq!(status, 200, "{body}\n{}", self.served.log());
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) async fn try_call(&self, path: &str) -> (u16, String) {
        let url = self.served.url(&format!("/run/local/app{path}"));
        let answer = self.client.post(url).json(&serde_json::json!({})).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    pub(crate) async fn runners(&self) -> Vec<Value> {
        let url = self.served.url("/api/v1/runners?app=local/app");
        let all: Value = self.client.get(url).send().await.unwrap().json().await.unwrap();
        all.as_array().unwrap().clone()
    }

    /// Ends every runner, so that the next call starts one.
    pub(crate) async fn end_runners(&self) {
        for runner in self.runners().await {
            self.cli(&["runners", "stop", runner["id"].as_str().unwrap()]);
        }
        glowplug_testkit::eventually("no runner is left", SOON, || async {
            self.runners().await.is_empty().then_some(())
        })
        .await;
    }

    /// Ends the runners, starts one by a call, and returns its id and the answer.
    pub(crate) async fn start_anew(&self, path: &str) -> (String, Value) {
        self.end_runners().await;
        let answer = self.call(path).await;
        let runners = self.runners().await;
        assert_eq!(runners.len(), 1, "{runners:?}");
        (runners[0]["id"].as_str().unwrap().to_owned(), answer)
    }

    #[expect(clippy::disallowed_methods, reason = "the command line under test")]
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_glowplug"))
            .args(arguments)
            .args(["--server", &self.served.url("")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until `why` says this: decisions are written down a moment after they are made.
    pub(crate) fn wait_for_why(&self, id: &str, words: &str) {
        let mut said = String::new();
        wait_until(&format!("`why {id}` says `{words}`"), SOON, || {
            said = self.cli(&["why", id]);
            said.contains(words).then_some(())
        });
    }

    /// Waits until the app has a zygote.
    pub(crate) fn wait_for_zygote(&self) {
        self.wait_for_why("local/app", "are forked from a zygote");
    }

    /// The processes that were started as zygotes; what they have forked has their command line too.
    pub(crate) fn zygotes(&self) -> Vec<u32> {
        let is_zygote = |pid: &u32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let parent = parent(*pid).unwrap_or(0);
            let of_parent = std::fs::read(format!("/proc/{parent}/cmdline")).unwrap_or_default();
            is_python_zygote(&command) && !is_python_zygote(&of_parent)
        };
        self.processes().into_iter().filter(is_zygote).collect()
    }

    /// Processes of this node: itself, shims, programs and whatever they started.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut found = processes_with(&self.data_dir.path().display().to_string());
        found.extend(processes_with(&self.served.folder().display().to_string()));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The node serves, and can be stopped without leaving anything.
    pub(crate) async fn end(mut self) {
        self.call("/").await;
        assert_eq!(self.served.stop(), Some(0), "{}", self.served.log());
        self.assert_nothing_left();
    }

    pub(crate) fn assert_nothing_left(&self) {
        wait_until("no process is left", SOON, || self.processes().is_empty().then_some(()));
        let folders = ["runners", "sockets", "zygotes/runners", "zygotes/sockets"];
        for folder in folders.map(|name| self.data_dir.path().join(name)) {
            let left: Vec<_> = std::fs::read_dir(&folder).into_iter().flatten().collect();
            assert!(left.is_empty(), "{}: {left:?}", folder.display());
        }
    }
}

fn is_python_zygote(command: &[u8]) -> bool {
    String::from_utf8_lossy(command).contains("import zygote")
}

/// A program's parent.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().nth(1)?.parse().ok()
}

pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
