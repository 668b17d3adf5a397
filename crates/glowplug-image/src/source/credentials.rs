//! Who we are to a registry: from the files where Docker and Podman keep it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Error;

const DOCKER_HUB: &str = "docker.io";
/// The name under which Docker files its own hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

#[derive(Clone, PartialEq, Eq)]
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

/// The files in which credentials are looked for, first to last.
pub fn files() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let docker =
        variable("DOCKER_CONFIG").or_else(|| variable("HOME").map(|home| home.join(".docker")));
    let runtime = variable("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json"));
    let containers = variable("REGISTRY_AUTH_FILE").or(runtime);
    docker.map(|folder| folder.join("config.json")).into_iter().chain(containers).collect()
}

/// What the files say about the registry; the first that knows it counts.
pub fn find(files: &[PathBuf], registry: &str) -> Result<Credentials, Error> {
    for file in files {
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        let found = read(&text, registry).map_err(|problem| invalid(file, problem))?;
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Ok(Credentials::Anonymous)
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

fn read(text: &str, registry: &str) -> Result<Option<Credentials>, String> {
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let helper = file.cred_helpers.iter().find(|(key, _)| names(key, registry));
    let found = file.auths.into_iter().find(|(key, _)| names(key, registry));
    let Some((_, auth)) = found else {
        return match helper.map(|(_, helper)| helper).or(file.creds_store.as_ref()) {
            Some(helper) => Err(format!(
                "they are kept by the helper `{helper}`, which is not asked: store them in the file itself"
            )),
            None => Ok(None),
        };
    };
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
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> Credentials {
        Credentials::Basic { user: user.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn every_form_of_the_file_is_read() {
        let text = r#"{"auths": {
            "example.com": {"auth": "dTpwOnc="},
            "https://other.example:5000/v2/": {"username": "a", "password": "b"},
            "https://index.docker.io/v1/": {"identitytoken": "t"},
            "empty.example": {}
        }}"#;
        let check = |registry: &str, expected: Option<Credentials>| {
            assert_eq!(read(text, registry), Ok(expected), "{registry}");
        };
        check("example.com", Some(basic("u", "p:w")));
        check("other.example:5000", Some(basic("a", "b")));
        check("other.example", None);
        check("docker.io", Some(Credentials::Token("t".to_owned())));
        check("empty.example", None);
        check("unknown.example", None);
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let check = |text: &str, expected: &str| {
            let problem = read(text, "example.com").unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        };
        check(r#"{"auths": {"example.com": {"auth": "!"}}}"#, "not `user:password` in base64");
        check(r#"{"credHelpers": {"example.com": "ecr-login"}}"#, "the helper `ecr-login`");
        check(r#"{"credsStore": "desktop"}"#, "the helper `desktop`");
        check("no json", "expected");
    }

    #[test]
    fn the_first_file_that_knows_the_registry_counts() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["missing", "one", "two"].map(|name| folder.path().join(name));
        let auth =
            |user: &str| format!(r#"{{"auths": {{"{user}.example": {{"username": "{user}"}}}}}}"#);
        std::fs::write(&files[1], auth("one")).unwrap();
        std::fs::write(&files[2], auth("two")).unwrap();
        assert_eq!(find(&files, "two.example").ok(), Some(basic("two", "")));
        assert_eq!(find(&files, "three.example").ok(), Some(Credentials::Anonymous));
    }
}
