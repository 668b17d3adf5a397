//! Who we are to a registry: from the files where Docker and Podman keep it, and the helpers that they name.

mod keeper;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Error;

const DOCKER_HUB: &str = "docker.io";
/// The name under which Docker files its own hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credentials {
    Anonymous,
    Basic { user: String, password: String },
    Token(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(…)",
            Self::Token(_) => "Token(…)",
        })
    }
}

/// Where credentials are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// First to last; the first that knows the registry counts.
    pub files: Vec<PathBuf>,
    /// The folders in which helpers are, in the form of `PATH`.
    pub path: OsString,
    /// For a helper to answer.
    pub helper_timeout: Duration,
}

impl Lookup {
    /// As Docker and Podman would find them for the user of this process.
    pub fn of_environment() -> Self {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let docker =
            variable("DOCKER_CONFIG").or_else(|| variable("HOME").map(|home| home.join(".docker")));
        let runtime = variable("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json"));
        let containers = variable("REGISTRY_AUTH_FILE").or(runtime);
        let docker = docker.map(|folder| folder.join("config.json"));
        Self {
            files: docker.into_iter().chain(containers).collect(),
            path: std::env::var_os("PATH").unwrap_or_default(),
            helper_timeout: Duration::from_secs(10),
        }
    }

    /// Who we are to the registry, `host` or `host:port`. Blocks while a helper is asked.
    pub fn find(&self, registry: &str) -> Result<Credentials, Error> {
        for file in &self.files {
            let Ok(text) = std::fs::read_to_string(file) else { continue };
            let said = File::read(&text).map_err(|problem| invalid(file, problem))?;
            let kept = said.helper(registry).and_then(|helper| {
                let key = if registry == DOCKER_HUB { DOCKER_HUB_KEY } else { registry };
                keeper::ask(helper, key, &self.path, self.helper_timeout)
            });
            if let Some(kept) = kept {
                return Ok(kept);
            }
            let written = said.written(registry).map_err(|problem| invalid(file, problem))?;
            if let Some(written) = written {
                return Ok(written);
            }
        }
        Ok(Credentials::Anonymous)
    }
}

fn invalid(file: &Path, problem: String) -> Error {
    Error::Credentials { file: file.display().to_string(), problem }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, Auth>,
    #[serde(default)]
    cred_helpers: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    #[serde(rename = "auth")]
    user_and_password: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl File {
    fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// The program that keeps what there is for the registry.
    fn helper(&self, registry: &str) -> Option<&str> {
        let own = self.cred_helpers.iter().find(|(key, _)| names(key, registry));
        let helper = own.map(|(_, helper)| helper).or(self.creds_store.as_ref())?;
        // How files say that there is none.
        (!helper.is_empty()).then_some(helper)
    }

    /// What the file itself has.
    fn written(self, registry: &str) -> Result<Option<Credentials>, String> {
        let found = self.auths.into_iter().find(|(key, _)| names(key, registry));
        let Some((_, auth)) = found else { return Ok(None) };
        for token in [auth.registrytoken, auth.identitytoken] {
            if !token.is_empty() {
                return Ok(Some(Credentials::Token(token)));
            }
        }
        if !auth.username.is_empty() {
            return Ok(Some(Credentials::Basic { user: auth.username, password: auth.password }));
        }
        if auth.user_and_password.is_empty() {
            return Ok(None);
        }
        let decoded =
            decode(&auth.user_and_password).ok_or("`auth` is not `user:password` in base64")?;
        Ok(Some(decoded))
    }
}

fn decode(auth: &str) -> Option<Credentials> {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(auth.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Credentials::Basic { user: user.to_owned(), password: password.to_owned() })
}

/// Keys are hosts, with or without a scheme and a path.
fn names(key: &str, registry: &str) -> bool {
    if registry == DOCKER_HUB && key == DOCKER_HUB_KEY {
        return true;
    }
    let host = key.split_once("://").map_or(key, |(_, rest)| rest);
    host.split('/').next() == Some(registry)
}

#[cfg(test)]
mod tests;
