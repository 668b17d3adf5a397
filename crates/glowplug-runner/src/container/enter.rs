//! What the program's process does between fork and exec: joins the container and gives up its rights.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{Gid, Mode, Uid};

use super::capabilities::Capabilities;
use super::system_calls::{Filter, put_on};
use super::{ContainerSpec, Sandbox, SystemCalls};

/// Everything prepared, so that the child makes system calls only.
#[derive(Debug)]
pub(crate) struct Entrance {
    sandbox: Sandbox,
    working_dir: CString,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    capabilities: Capabilities,
    /// Empty: no filter.
    filter: Vec<libc::sock_filter>,
}

impl Entrance {
    pub(crate) fn new(
        sandbox: Sandbox,
        spec: &ContainerSpec,
        working_dir: &Path,
    ) -> Result<Self, String> {
        let working_dir = CString::new(working_dir.as_os_str().to_owned().into_vec())
            .map_err(|_| "the working directory's path holds a zero byte".to_owned())?;
        let identity = &sandbox.user.identity;
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
        let groups = identity.groups.iter().copied().map(Gid::from_raw).collect();
        let capabilities = spec.capabilities;
        let filter = match spec.system_calls {
            SystemCalls::Filtered => Filter::new().program(),
            SystemCalls::All => Vec::new(),
        };
        Ok(Self { sandbox, working_dir, uid, gid, groups, capabilities, filter })
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// From the host into the container, still with every right.
    pub(crate) fn join(&self) -> io::Result<()> {
        self.sandbox.join()?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        Ok(rustix::process::chdir(&*self.working_dir)?)
    }

    /// Gives up what the program may not do. The order matters: each step needs a right that a later one
    /// takes away.
    pub(crate) fn give_up_rights(&self) -> io::Result<()> {
        leave_session_keyring();
        self.capabilities.bound()?;
        rustix::thread::set_thread_groups(&self.groups)?;
        rustix::thread::set_thread_gid(self.gid)?;
        rustix::thread::set_thread_uid(self.uid)?;
        let held = if self.uid.is_root() { self.capabilities } else { Capabilities::NONE };
        held.hold()?;
        Ok(rustix::thread::set_no_new_privs(true)?)
    }

    /// The very last step: the program's own start must get by with what is left.
    pub(crate) fn filter(&self) -> io::Result<()> {
        if self.filter.is_empty() { Ok(()) } else { put_on(&self.filter) }
    }
}

/// The kernel's keys of whoever started the node are not the program's, not even without the filter.
fn leave_session_keyring() {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    #[expect(unsafe_code, reason = "keyrings have no safe interface")]
    // SAFETY: a null name is what asks for a new keyring without one. A kernel without keys refuses, and has
    // none to hide.
    unsafe {
        libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>());
    }
}
