//! What root may do in a container.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities,
};
use serde::{Deserialize, Serialize};

/// The kernel's numbers for capabilities end far below this.
const NUMBERS_MAX: u32 = 64;

/// A set of capabilities, one bit for each by the kernel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(u64);

impl Default for Capabilities {
    /// What servers in images are known to need as root: to own their files, to give up root, to listen on
    /// low ports and to end their children. Neither raw sockets nor device nodes.
    fn default() -> Self {
        let needed = CapabilitySet::CHOWN
            | CapabilitySet::DAC_OVERRIDE
            | CapabilitySet::FOWNER
            | CapabilitySet::FSETID
            | CapabilitySet::KILL
            | CapabilitySet::SETGID
            | CapabilitySet::SETUID
            | CapabilitySet::NET_BIND_SERVICE
            | CapabilitySet::SYS_CHROOT;
        Self(needed.bits())
    }
}

impl Capabilities {
    pub const NONE: Self = Self(0);

    /// By the kernel's numbers, one bit for each.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub const fn bits(self) -> u64 {
        self.0
    }

    /// What of it this process could give: a runtime that is asked for more starts nothing.
    pub(crate) fn possible(self) -> io::Result<Self> {
        let held = capabilities(None)?.permitted;
        Ok(Self(held.intersection(CapabilitySet::from_bits_retain(self.0)).bits()))
    }

    /// Takes from this process for good what is not in the set, for itself and for all it will run. The
    /// current set shrinks too. Makes system calls only.
    pub(super) fn bound(self) -> io::Result<()> {
        for number in 0..NUMBERS_MAX {
            if self.0 & (1 << number) != 0 {
                continue;
            }
            match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number))
            {
                // Numbers that this kernel does not know follow.
                Err(rustix::io::Errno::INVAL) => break,
                other => other?,
            }
        }
        Ok(())
    }

    /// Makes this the set that the process has now, as far as it has it. Makes system calls only.
    pub(super) fn hold(self) -> io::Result<()> {
        let permitted = capabilities(None)?.permitted;
        let set = CapabilitySet::from_bits_retain(self.0).intersection(permitted);
        let sets =
            CapabilitySets { effective: set, permitted: set, inheritable: CapabilitySet::empty() };
        Ok(set_capabilities(None, sets)?)
    }
}
