//! Programs that keep credentials, as Docker calls them: `docker-credential-NAME get`.
//!
//! A helper that is missing or fails costs a warning and no more: most images are public, and who may not see
//! one is told so by the registry.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use serde::Deserialize;

use super::Credentials;

/// Of what a helper says.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;
/// What stands in place of a user where the secret is a token.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Said {
    username: String,
    secret: String,
}

/// `None`: the helper has nothing for the registry, or cannot be asked.
pub(super) fn ask(helper: &str, key: &str, path: &OsStr, timeout: Duration) -> Option<Credentials> {
    match run(helper, key, path, timeout) {
        Ok(found) => found,
        Err(problem) => {
            tracing::warn!(
                helper,
                registry = key,
                problem,
                "a credential helper cannot be asked: images are pulled without credentials"
            );
            None
        }
    }
}

fn run(
    helper: &str,
    key: &str,
    path: &OsStr,
    timeout: Duration,
) -> Result<Option<Credentials>, String> {
    let program = program(helper, path)?;
    let mut child = spawn(&program).map_err(|error| error.to_string())?;
    let said = converse(&mut child, key, timeout);
    if said.is_err() {
        // It may hang, or wait for a person.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    let said = said?;
    if !status.success() {
        // The protocol's way to say that there is nothing; the words differ.
        return Ok(None);
    }
    let Said { username, secret } = serde_json::from_slice(&said)
        .map_err(|error| format!("its answer is malformed: {error}"))?;
    Ok(Some(match username.as_str() {
        TOKEN_USER => Credentials::Token(secret),
        _ => Credentials::Basic { user: username, password: secret },
    }))
}

fn program(helper: &str, path: &OsStr) -> Result<PathBuf, String> {
    let name = format!("docker-credential-{helper}");
    if Path::new(&name).components().count() != 1 {
        return Err(format!("`{helper}` is no name of a program"));
    }
    let found = std::env::split_paths(path).map(|folder| folder.join(&name));
    found
        .into_iter()
        .find(|program| program.is_file())
        .ok_or(format!("there is no `{name}` on PATH"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "owned here: it is waited for, or killed after its time"
)]
fn spawn(program: &Path) -> std::io::Result<Child> {
    Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

/// Says which registry is meant, and reads the answer.
fn converse(child: &mut Child, key: &str, timeout: Duration) -> Result<Vec<u8>, String> {
    let (mut input, output) = (child.stdin.take(), child.stdout.take());
    let key = key.to_owned();
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        // A helper that does not listen says what is wrong by its exit.
        let _ = input.as_mut().map(|input| input.write_all(key.as_bytes()));
        drop(input);
        let mut said = Vec::new();
        let read =
            output.map_or(Ok(0), |output| output.take(OUTPUT_BYTES_MAX).read_to_end(&mut said));
        // Nobody may wait any more.
        let _ = sender.send(read.map(|_| said));
    });
    match receiver.recv_timeout(timeout) {
        Ok(said) => said.map_err(|error| error.to_string()),
        Err(_) => Err(format!("it did not answer within {} s", timeout.as_secs())),
    }
}
