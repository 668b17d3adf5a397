//! What a runner is given that outlives it, or that nobody else may know: `/data`, mounts and secrets.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use glowplug_runner::{Bind, Writes};

use crate::config::{AppName, ContainerConfig, DATA_DIR, Data, SecretSource};

/// Of one secret. A key or a certificate has a few thousand.
const SECRET_BYTES_MAX: u64 = 64 << 10;
/// Apps of one owner may run as different users of their images; nobody else gets past the directory above.
const OWNER_MODE: u32 = 0o1777;
/// Where tools keep what they have fetched or compiled, so that it is fetched once.
const CACHES: [(&str, &str); 4] = [
    ("HF_HOME", "/data/.cache/huggingface"),
    ("TORCH_HOME", "/data/.cache/torch"),
    ("TRITON_CACHE_DIR", "/data/.cache/triton"),
    ("XDG_CACHE_HOME", "/data/.cache"),
];

/// Variables for caches that outlive a runner.
pub(super) fn caches(config: &ContainerConfig) -> impl Iterator<Item = (String, String)> {
    let has_data = config.data != Data::None;
    CACHES
        .into_iter()
        .filter(move |_| has_data)
        .map(|(name, dir)| (name.to_owned(), dir.to_owned()))
}

/// Parts of the host for an app's containers. `data_dir`: the node's.
pub(super) fn binds(
    config: &ContainerConfig,
    app: &AppName,
    data_dir: &Path,
) -> Result<Vec<Bind>, String> {
    let mut binds = Vec::new();
    let data = match &config.data {
        Data::None => None,
        Data::At(dir) => Some(dir.clone()),
        Data::OfOwner => Some(of_owner(data_dir, app.owner())?),
    };
    binds.extend(data.map(|source| Bind { source, target: DATA_DIR.into(), writes: Writes::Kept }));
    binds.extend(config.mounts.iter().map(|mount| Bind {
        source: mount.source.clone(),
        target: mount.target.clone(),
        writes: if mount.read_only { Writes::Refused } else { Writes::Kept },
    }));
    Ok(binds)
}

fn of_owner(data_dir: &Path, owner: &str) -> Result<PathBuf, String> {
    let all = data_dir.join("data");
    let dir = all.join(owner);
    let make = || -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&all)?;
        match fs::create_dir(&dir) {
            Ok(()) => fs::set_permissions(&dir, fs::Permissions::from_mode(OWNER_MODE)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    };
    make().map_err(|error| format!("cannot make {} for {DATA_DIR}: {error}", dir.display()))?;
    Ok(dir)
}

/// The secrets as they are now, by name. Errors never hold what was read.
pub(crate) fn secrets(
    sources: &BTreeMap<String, SecretSource>,
) -> Result<BTreeMap<String, String>, String> {
    sources
        .iter()
        .map(|(name, source)| {
            let found = find(source).map_err(|problem| format!("the secret `{name}` {problem}"))?;
            Ok((name.clone(), found))
        })
        .collect()
}

fn find(source: &SecretSource) -> Result<String, String> {
    match source {
        SecretSource::Variable(variable) => std::env::var(variable).map_err(|_| {
            format!("is not there: set {variable} in the node's environment and start it again")
        }),
        SecretSource::File(file) => {
            let mut text = String::new();
            let read = File::open(file)
                .and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text));
            read.map_err(|error| format!("cannot be read from {}: {error}", file.display()))?;
            if text.len() as u64 > SECRET_BYTES_MAX {
                return Err(format!(
                    "in {} is longer than {SECRET_BYTES_MAX} bytes",
                    file.display()
                ));
            }
            // Editors end a file with a line's end, which is no part of a key.
            Ok(text.strip_suffix('\n').map_or(text.clone(), str::to_owned))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_or_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        fs::write(&file, "hunter2\n").unwrap();
        let source = |path: &str| SecretSource::File(dir.path().join(path));
        let sources = BTreeMap::from([("TOKEN".to_owned(), source("token"))]);
        assert_eq!(secrets(&sources).unwrap()["TOKEN"], "hunter2");
        let missing = BTreeMap::from([("TOKEN".to_owned(), source("other"))]);
        let problem = secrets(&missing).unwrap_err();
        assert!(problem.contains("`TOKEN`") && problem.contains("other"), "{problem}");
        let unset = SecretSource::Variable("GLOWPLUG_NO_SUCH_VARIABLE".to_owned());
        let problem = secrets(&BTreeMap::from([("A".to_owned(), unset)])).unwrap_err();
        assert!(problem.contains("GLOWPLUG_NO_SUCH_VARIABLE"), "{problem}");
        fs::write(&file, "x".repeat(70_000)).unwrap();
        assert!(secrets(&sources).unwrap_err().contains("longer"));
    }

    #[test]
    fn an_owner_s_data_is_made_once_and_is_for_all_users() {
        let dir = tempfile::tempdir().unwrap();
        let made = of_owner(dir.path(), "team").unwrap();
        assert_eq!(of_owner(dir.path(), "team").unwrap(), made);
        assert_eq!(made.metadata().unwrap().permissions().mode() & 0o7777, OWNER_MODE);
        let above = dir.path().join("data").metadata().unwrap().permissions().mode();
        assert_eq!(above & 0o777, 0o700, "only the node's user gets there");
    }
}
