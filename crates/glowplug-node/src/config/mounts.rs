//! What an app is given from outside: `data`, `mounts` and `secrets`.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::layers::{Layers, Values};
use super::value::Value;

/// Where a container finds what outlives it.
pub(crate) const DATA_DIR: &str = "/data";
/// What a container has of its kernel is nobody's to cover.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];
const VARIABLE: &str = "env:";
const FILE: &str = "file:";

/// What is at `/data`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Data {
    #[default]
    None,
    /// What all apps of the owner share, below the node's data directory.
    OfOwner,
    /// A directory of the host. It existed when the config was read.
    At(PathBuf),
}

/// A file or directory of the host in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// It existed when the config was read.
    pub source: PathBuf,
    pub target: PathBuf,
    pub read_only: bool,
}

/// Where the node finds a secret when a runner starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In its own environment.
    Variable(String),
    File(PathBuf),
}

pub(super) fn data(layers: &mut Layers, path: &str, values: &Values) -> Data {
    match values.get("data") {
        Some((Value::Bool(true), _)) => Data::OfOwner,
        Some((Value::Text(dir), origin)) => {
            let dir = layers.base(origin).join(dir);
            if !dir.is_dir() {
                let message = format!("`data` in [{path}] is no directory: {}", dir.display());
                let help = "make it, or write `true` for one in the node's data directory";
                layers.problem(origin.clone(), message, Some(help.into()));
            }
            Data::At(dir)
        }
        _ => Data::None,
    }
}

pub(super) fn mounts(layers: &mut Layers, path: &str, values: &Values) -> Vec<Mount> {
    let origin = values.origin("mounts");
    let base = layers.base(&origin);
    let mut mounts = Vec::new();
    for text in values.list("mounts").unwrap_or_default() {
        match mount(&text, &base) {
            Ok(mount) => mounts.push(mount),
            Err(problem) => {
                let message = format!("`mounts` in [{path}] has \"{text}\": {problem}");
                let help = "write it as in \"/srv/models:/models:ro\"";
                layers.problem(origin.clone(), message, Some(help.into()));
            }
        }
    }
    mounts
}

/// `SOURCE:TARGET`, with `:ro` if the container may not write.
fn mount(text: &str, base: &Path) -> Result<Mount, String> {
    let (places, read_only) = match text.strip_suffix(":ro") {
        Some(places) => (places, true),
        None => (text.strip_suffix(":rw").unwrap_or(text), false),
    };
    let (source, target) = places.rsplit_once(':').ok_or("it does not say where to")?;
    if source.is_empty() {
        return Err("it does not say from where".to_owned());
    }
    let (source, target) = (base.join(source), PathBuf::from(target));
    if !source.exists() {
        return Err(format!("there is no {}", source.display()));
    }
    check_target(&target)?;
    Ok(Mount { source, target, read_only })
}

/// Neither the root itself, nor out of it, nor over what the kernel shows there.
fn check_target(target: &Path) -> Result<(), String> {
    let mut parts = target.components();
    let is_plain = parts.next() == Some(Component::RootDir)
        && parts.clone().count() > 0
        && parts.all(|part| matches!(part, Component::Normal(_)));
    if !is_plain {
        return Err(format!(
            "{} is no place in a container: it must be a full path without `..`",
            target.display()
        ));
    }
    match KERNELS.iter().find(|kernel| target.starts_with(kernel)) {
        Some(kernel) => Err(format!("nothing can be put below {kernel}")),
        None => Ok(()),
    }
}

pub(super) fn secrets(
    layers: &mut Layers,
    path: &str,
    values: &Values,
) -> BTreeMap<String, SecretSource> {
    let origin = values.origin("secrets");
    let base = layers.base(&origin);
    let mut secrets = BTreeMap::new();
    for (name, text) in values.texts("secrets").unwrap_or_default() {
        match secret(&name, &text, &base) {
            Ok(source) => {
                secrets.insert(name, source);
            }
            Err(problem) => {
                let message = format!("the secret `{name}` in [{path}] {problem}");
                let help =
                    "write it as in { TOKEN = \"env:TOKEN\" } or { TOKEN = \"file:token.txt\" }";
                layers.problem(origin.clone(), message, Some(help.into()));
            }
        }
    }
    secrets
}

/// Does not repeat what is there: somebody may have put the secret itself.
fn secret(name: &str, text: &str, base: &Path) -> Result<SecretSource, &'static str> {
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        return Err("has a name that no variable can have");
    }
    let source = match (text.strip_prefix(VARIABLE), text.strip_prefix(FILE)) {
        (Some(variable), _) if !variable.is_empty() => SecretSource::Variable(variable.to_owned()),
        (_, Some(file)) if !file.is_empty() => SecretSource::File(base.join(file)),
        _ => return Err("does not say where it is: it must begin with `env:` or `file:`"),
    };
    Ok(source)
}

pub(super) fn secret_files(layers: &mut Layers, path: &str, values: &Values) -> Option<PathBuf> {
    let dir = PathBuf::from(values.text("secret_files")?);
    if let Err(problem) = check_target(&dir) {
        let message = format!("`secret_files` in [{path}] cannot be used: {problem}");
        layers.problem(values.origin("secret_files"), message, None);
    }
    Some(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_say_from_where_to_where() {
        let base = tempfile::tempdir().unwrap();
        let source = base.path().join("models");
        std::fs::create_dir(&source).unwrap();
        let check = |text: &str, target: &str, read_only| {
            let expected = Mount { source: source.clone(), target: target.into(), read_only };
            assert_eq!(mount(text, base.path()), Ok(expected), "{text}");
        };
        check("models:/models", "/models", false);
        check("models:/a/b:ro", "/a/b", true);
        check("models:/a:rw", "/a", false);
        for (text, words) in [
            ("models", "where to"),
            (":/models", "from where"),
            ("missing:/models", "there is no"),
            ("models:/", "no place"),
            ("models:models", "no place"),
            ("models:/a/../../b", "no place"),
            ("models:/proc", "below /proc"),
            ("models:/sys/fs", "below /sys"),
            ("models:/dev/shm:ro", "below /dev"),
        ] {
            let problem = mount(text, base.path()).unwrap_err();
            assert!(problem.contains(words), "{text}: {problem}");
        }
    }

    #[test]
    fn secrets_say_where_they_are_and_are_not_repeated() {
        let base = Path::new("/base");
        let variable = SecretSource::Variable("TOKEN".to_owned());
        assert_eq!(secret("TOKEN", "env:TOKEN", base), Ok(variable));
        assert_eq!(secret("T", "file:t", base), Ok(SecretSource::File("/base/t".into())));
        for (name, text) in
            [("TOKEN", "hunter2"), ("TOKEN", "env:"), ("a-b", "env:A"), ("", "env:A")]
        {
            let problem = secret(name, text, base).unwrap_err();
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }
}
