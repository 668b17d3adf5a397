//! What the program may know and nobody else, as files in memory.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::Path;

use rustix::mount::{MountFlags, mount_remount};

use super::mounts::{check_target, failed, place};
use super::spec::SecretFiles;
use crate::protocol::Identity;

/// More does not fit into what the shim is told, so that this is never in the way.
const OPTIONS: &str = "mode=0500,size=16777216";

/// Where the container's root is the root.
pub(super) fn mount(secrets: &SecretFiles, identity: &Identity) -> Result<(), String> {
    check(secrets)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    place("tmpfs", &secrets.dir, flags, Some(OPTIONS))?;
    write(secrets, &secrets.dir, identity)?;
    mount_remount(&secrets.dir, flags | MountFlags::BIND | MountFlags::RDONLY, c"")
        .map_err(|error| failed(&secrets.dir, error))
}

pub(super) fn check(secrets: &SecretFiles) -> Result<(), String> {
    check_target(&secrets.dir)?;
    match secrets
        .files
        .keys()
        .find(|name| name.contains('/') || matches!(&***name, "" | "." | ".."))
    {
        Some(name) => Err(format!("the secret `{name}` has a name that no file can have")),
        None => Ok(()),
    }
}

/// Into a directory that exists, for this user alone.
pub(super) fn write(secrets: &SecretFiles, dir: &Path, identity: &Identity) -> Result<(), String> {
    let (uid, gid) = (Some(identity.uid), Some(identity.gid));
    let write = |(name, text): (&String, &String)| -> io::Result<()> {
        let path = dir.join(name);
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o400).open(&path)?.write_all(text.as_bytes())?;
        chown(&path, uid, gid)
    };
    let written = secrets.files.iter().try_for_each(write).and_then(|()| chown(dir, uid, gid));
    written.map_err(|error| failed(&secrets.dir, error))
}
