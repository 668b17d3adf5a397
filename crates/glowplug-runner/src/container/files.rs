//! The few files that a container needs of its host, or of nobody in particular.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::{Network, SOCKET_DIR};
use crate::protocol::Identity;

/// What of the host's files has to be known before its tree is let go.
#[derive(Debug)]
pub(super) struct HostFiles {
    /// How the host finds names; `None` where the container has no one to ask.
    resolver: Option<Vec<u8>>,
    names: Vec<u8>,
}

impl HostFiles {
    pub(super) fn read(network: Network) -> Self {
        match network {
            Network::None => Self { resolver: None, names: Vec::new() },
            // What is not there now is missed by the program as it would be outside.
            Network::Host => Self {
                resolver: fs::read("/etc/resolv.conf").ok(),
                names: fs::read("/etc/hosts").unwrap_or_default(),
            },
        }
    }

    /// Writes what no image can know. To be called where the container's root is the root.
    pub(super) fn write(&self, hostname: &str) -> Result<(), String> {
        let mut names = self.names.clone();
        if names.is_empty() {
            names.extend_from_slice(b"127.0.0.1 localhost\n::1 localhost\n");
        }
        names.extend_from_slice(format!("127.0.0.1 {hostname}\n").as_bytes());
        let mut all =
            vec![("/etc/hosts", names), ("/etc/hostname", format!("{hostname}\n").into_bytes())];
        all.extend(self.resolver.clone().map(|text| ("/etc/resolv.conf", text)));
        make_dirs(Path::new("/etc")).map_err(|error| failed("/etc", &error))?;
        for (path, content) in all {
            put(Path::new(path), &content).map_err(|error| failed(path, &error))?;
        }
        Ok(())
    }
}

/// In place of whatever is there: an image may have a link, which is not followed.
fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(content)
}

/// Engines make the directory that a program starts in if the image lacks it, and images rely on it.
pub(super) fn make_working_dir(dir: &Path) -> Result<(), String> {
    if !dir.is_absolute() {
        return Err(format!("the working directory {} is no full path", dir.display()));
    }
    make_dirs(dir).map_err(|error| {
        format!("the working directory {} cannot be made: {error}", dir.display())
    })?;
    if dir.is_dir() {
        return Ok(());
    }
    Err(format!("the working directory {} is no directory", dir.display()))
}

/// Where the program's own socket will be. A link on the way is found by whoever looks before it is used.
pub(super) fn make_socket_place() -> Result<(), String> {
    make_dirs(Path::new(SOCKET_DIR)).map_err(|error| failed(SOCKET_DIR, &error))
}

/// Makes the program's user the owner.
pub(super) fn give(dir: &Path, identity: &Identity) -> Result<(), String> {
    std::os::unix::fs::lchown(dir, Some(identity.uid), Some(identity.gid))
        .map_err(|error| format!("cannot give {} to the container's user: {error}", dir.display()))
}

fn make_dirs(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)
}

fn failed(path: &str, error: &io::Error) -> String {
    format!("cannot write {path} in the container: {error}")
}
