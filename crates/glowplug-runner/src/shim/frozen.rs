//! A runner without a processor.

use super::{Shim, Stop};
use crate::proc_table::descendants;
use crate::protocol::FromShim;

impl Shim {
    /// Only a runner that is ready and is to stay can be frozen: what starts has a node that waits for it.
    pub(super) fn freeze(&mut self) {
        let told = match self.try_freeze() {
            Ok(held_bytes) => FromShim::Frozen { held_bytes },
            Err(problem) => FromShim::NotFrozen { problem },
        };
        self.broadcast(&told);
    }

    fn try_freeze(&mut self) -> Result<u64, String> {
        if !self.ready || self.stop != Stop::NotAsked || self.job.is_some() {
            return Err("it does not rest".to_owned());
        }
        if self.order.has_oci_runtime() {
            return Err("its container belongs to an OCI runtime".to_owned());
        }
        if self.foster.is_none() {
            // What is not inside would run on. Children of a zygote were inside from the first.
            self.groups.gather(descendants);
        }
        let held_bytes = self.groups.freeze()?;
        self.is_frozen = true;
        Ok(held_bytes)
    }

    pub(super) fn thaw(&mut self) {
        self.let_run();
        if !self.is_frozen {
            self.broadcast(&FromShim::Thawed);
        }
    }

    /// What is told to end must be able to.
    pub(super) fn let_run(&mut self) {
        if !self.is_frozen {
            return;
        }
        match self.groups.thaw() {
            Ok(()) => self.is_frozen = false,
            Err(problem) => self.log.say(&format!("it cannot be thawed: {problem}")),
        }
    }
}
