//! The files of a container: the image's layers, with what the program writes above them in memory.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::mounts::{cannot, failed, files, place};
use super::spec::{ContainerSpec, Writes};
use super::tree::{Reach, limit};

/// What the kernel takes as the options of a mount, the closing zero counted.
const OPTIONS_BYTES_MAX: usize = 4_096;

/// Mounts the layers with an empty layer in memory on top, and tells where.
pub(super) fn assemble(spec: &ContainerSpec, scaffold: &Path) -> Result<PathBuf, String> {
    let bytes = spec.root.writable_bytes;
    let options = format!("mode=0755,size={bytes},nr_inodes={}", files(bytes));
    place("tmpfs", scaffold, MountFlags::NOSUID | MountFlags::NODEV, Some(&options))?;
    let (upper, work) = (scaffold.join("upper"), scaffold.join("work"));
    let root = scaffold.join("root");
    for dir in [&upper, &work, &root] {
        std::fs::create_dir(dir).map_err(|error| failed(dir, error))?;
    }
    like_the_image(spec, &upper).map_err(|error| failed(&upper, error))?;
    let options = overlay_options(spec, &upper, &work)?;
    mount("overlay", &root, "overlay", MountFlags::NODEV | MountFlags::NOSUID, &*options)
        .map_err(|error| cannot("put the image's layers together", error))?;
    Ok(root)
}

/// What was assembled becomes `/`; the host's tree is let go.
pub(super) fn enter(root: &Path) -> Result<(), String> {
    let enter = || {
        rustix::process::chdir(root)?;
        // The old root is put on top of the new one and taken off there, so it needs no place of its own.
        rustix::process::pivot_root(".", ".")?;
        unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")
    };
    enter().map_err(|error| cannot("make the image's files the container's root", error))
}

/// Does something where what was assembled is `/`, so that no link in an image leads out of it, and comes
/// back. Nothing of the image's runs meanwhile.
pub(super) fn within<T>(
    root: &Path,
    work: impl FnOnce() -> Result<T, String>,
) -> Result<T, String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let host = rustix::fs::open("/", flags, Mode::empty())
        .map_err(|error| cannot("hold on to the host's root", error))?;
    rustix::process::chroot(root)
        .and_then(|()| rustix::process::chdir("/"))
        .map_err(|error| cannot("look at the image's files", error))?;
    let done = work();
    rustix::process::fchdir(&host)
        .and_then(|()| rustix::process::chroot("."))
        .map_err(|error| cannot("come back from the image's files", error))?;
    done
}

/// Takes from `/`, as this process sees it, what no container's root has.
pub(super) fn restrict(spec: &ContainerSpec) -> io::Result<()> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let mut limits = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    if spec.root.writes == Writes::Refused {
        limits |= libc::MOUNT_ATTR_RDONLY;
    }
    limit(root.as_fd(), limits, Reach::This)
}

/// The uppermost layer says whose `/` is and who may write to it, also where it is empty.
fn like_the_image(spec: &ContainerSpec, upper: &Path) -> io::Result<()> {
    // That a layer is missing is told when it is mounted.
    let Some(image) = spec.root.lower.first().and_then(|dir| std::fs::metadata(dir).ok()) else {
        return Ok(());
    };
    std::fs::set_permissions(upper, image.permissions())?;
    std::os::unix::fs::chown(upper, Some(image.uid()), Some(image.gid()))
}

fn overlay_options(spec: &ContainerSpec, upper: &Path, work: &Path) -> Result<CString, String> {
    let mut options = b"metacopy=on,redirect_dir=on,lowerdir=".to_vec();
    for (index, dir) in spec.root.lower.iter().enumerate() {
        options.extend_from_slice(if index == 0 { b"" } else { b":" });
        push_escaped(&mut options, dir);
    }
    for dir in &spec.root.data {
        options.extend_from_slice(b"::");
        push_escaped(&mut options, dir);
    }
    for (name, dir) in [(&b",upperdir="[..], upper), (b",workdir=", work)] {
        options.extend_from_slice(name);
        push_escaped(&mut options, dir);
    }
    if options.len() >= OPTIONS_BYTES_MAX {
        return Err(format!(
            "the paths of the container's {} layers are longer than the {OPTIONS_BYTES_MAX} bytes that a \
             mount takes",
            spec.root.lower.len()
        ));
    }
    CString::new(options).map_err(|_| "a layer's path holds a zero byte".to_owned())
}

/// Colons and commas part directories and options.
fn push_escaped(options: &mut Vec<u8>, path: &Path) {
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b':' | b',') {
            options.push(b'\\');
        }
        options.push(*byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_with_odd_names_stay_one_layer_each() {
        let mut spec = ContainerSpec::new(vec!["/a:b".into(), "/c,d".into()]);
        spec.root.data = vec!["/e\\f".into()];
        let options = overlay_options(&spec, Path::new("/u"), Path::new("/w")).unwrap();
        assert_eq!(
            options.to_str().unwrap(),
            "metacopy=on,redirect_dir=on,lowerdir=/a\\:b:/c\\,d::/e\\\\f,upperdir=/u,workdir=/w"
        );
        let many = ContainerSpec::new(vec!["/x".repeat(99).into(); 99]);
        assert!(overlay_options(&many, Path::new("/u"), Path::new("/w")).is_err());
    }
}
