//! What the init prepares for an OCI runtime: the image's files, what is bound into them, and a place for
//! the bundle.

use std::fs::DirBuilder;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, unmount};
use rustix::thread::UnshareFlags;

use super::super::{
    Numbers, Preparation, Prepared, Runtime, devices, files, init, mounts, passwd, root, secrets,
    unshare,
};
use super::{BUNDLE_BYTES, BUNDLE_DIR, Family};

/// Version 2 of the control groups where version 1 is in use as well.
const SECOND_HIERARCHY: &str = "/sys/fs/cgroup/unified";

/// Where the bind with this number is taken from by the runtime.
pub(super) fn bind_place(scaffold: &Path, number: usize) -> std::path::PathBuf {
    scaffold.join(BUNDLE_DIR).join(format!("bind-{number}"))
}

/// Where the files of secrets are taken from by the runtime.
pub(super) fn secrets_place(scaffold: &Path) -> std::path::PathBuf {
    scaffold.join(BUNDLE_DIR).join("secrets")
}

pub(in super::super) fn make(preparation: &Preparation<'_>) -> Result<Prepared, String> {
    let spec = preparation.spec;
    init::part(spec, UnshareFlags::empty())?;
    mounts::part_from_host()?;
    let binds = mounts::take_binds(preparation)?;
    spec.scratch.iter().try_for_each(|scratch| mounts::check_target(&scratch.target))?;
    devices::look_up(&spec.devices)?;
    let host_files = files::HostFiles::read(spec.network);
    let files_root = root::assemble(spec, preparation.scaffold)?;
    let user = root::within(&files_root, || {
        host_files.write(&spec.hostname)?;
        files::make_socket_place()?;
        mounts::check_socket_dir()?;
        files::make_working_dir(preparation.working_dir)?;
        passwd::resolve(&spec.user)
    })?;
    let place = preparation.scaffold.join(BUNDLE_DIR);
    let options = format!("mode=0700,size={BUNDLE_BYTES}");
    mounts::place("tmpfs", &place, MountFlags::NOSUID | MountFlags::NODEV, Some(&options))?;
    for (number, (tree, _)) in binds.iter().enumerate() {
        let place = bind_place(preparation.scaffold, number);
        // Their limits come along when the runtime binds them to where they belong.
        mounts::make_place(&place, tree.is_dir)
            .and_then(|()| tree.attach(&place))
            .map_err(|error| mounts::failed(&place, error))?;
    }
    if let Some(files) = &spec.secrets {
        secrets::check(files)?;
        let place = secrets_place(preparation.scaffold);
        DirBuilder::new()
            .mode(0o500)
            .create(&place)
            .map_err(|error| mounts::failed(&files.dir, error))?;
        secrets::write(files, &place, &user.identity)?;
    }
    if let Runtime::Oci(runtime) = &spec.runtime
        && Family::of(runtime) == Family::Crun
    {
        hide_second_hierarchy()?;
    }
    let workshop = leave(&place, &files_root)?;
    Ok(Prepared { user, workshop: Some(workshop) })
}

/// Leaves for the runtime what was made, and goes where the container's own files are all there is: nothing
/// of the host is to be found through this process.
fn leave(bundle: &Path, files_root: &Path) -> Result<Numbers, String> {
    let hold = |path: &Path| {
        // Closed with everything else when this process goes to sleep.
        std::fs::File::open(path)
            .map(IntoRawFd::into_raw_fd)
            .map_err(|error| mounts::cannot("hold on to what an OCI runtime needs", error))
    };
    let numbers = Numbers { mounts: hold(Path::new("/proc/self/ns/mnt"))?, bundle: hold(bundle)? };
    unshare(UnshareFlags::NEWNS).map_err(|error| mounts::cannot("part from the runtime", error))?;
    root::enter(files_root)?;
    Ok(numbers)
}

/// `crun` refuses to work where both versions of control groups are mounted and version 2 has controllers,
/// even if it is to leave groups alone. The shim has made the groups, so it need not see them.
fn hide_second_hierarchy() -> Result<(), String> {
    match unmount(SECOND_HIERARCHY, UnmountFlags::DETACH) {
        // Most hosts have one version only.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(mounts::cannot("hide the second kind of control groups", error)),
    }
}
