//! What a runner occupies and what a node has: CPU, memory, and GPUs one by one.

use std::collections::BTreeMap;
use std::fmt;

/// A GPU of the node, by its index (what `CUDA_VISIBLE_DEVICES` counts).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    pub index: u32,
    /// Model as a machine type asks for it, for example `H100`. Compared without regard to case.
    pub kind: String,
    pub memory_bytes: u64,
}

/// What a node offers in total.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub gpus: Vec<Gpu>,
}

/// A named bundle of resources; an app lists the ones it can run on, best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineType {
    pub name: String,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub gpus: u32,
    /// Only GPUs of this model count. `None`: any.
    pub gpu_kind: Option<String>,
    /// Only GPUs with at least this much memory count.
    pub gpu_memory_bytes: u64,
}

impl MachineType {
    fn accepts(&self, gpu: &Gpu) -> bool {
        let kind_fits =
            self.gpu_kind.as_ref().is_none_or(|kind| kind.eq_ignore_ascii_case(&gpu.kind));
        kind_fits && gpu.memory_bytes >= self.gpu_memory_bytes
    }
}

/// What one runner holds: a machine type's amounts and the very devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// Which of the app's machine types was taken.
    pub machine_type: String,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    /// Indices of the GPUs, ascending; what `CUDA_VISIBLE_DEVICES` is set to.
    pub gpus: Vec<u32>,
}

/// What was short when a machine type did not fit, for people to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortage {
    Cpu { wanted_millis: u64, free_millis: u64 },
    Memory { wanted_bytes: u64, free_bytes: u64 },
    Gpus { wanted: u32, free: u32 },
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        match self {
            Self::Cpu { wanted_millis, free_millis } => {
                write!(f, "wants {wanted_millis} CPU millis, {free_millis} are free")
            }
            Self::Memory { wanted_bytes, free_bytes } => {
                write!(
                    f,
                    "wants {} MiB of memory, {} are free",
                    wanted_bytes / MIB,
                    free_bytes / MIB
                )
            }
            Self::Gpus { wanted, free } => {
                write!(f, "wants {wanted} GPU(s), {free} fitting are free")
            }
        }
    }
}

/// Who holds what. The free part is always the total less all allocations.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    total: Capacity,
    /// Wider than any one amount, so that no sum of them overflows.
    used_cpu_millis: u128,
    used_memory_bytes: u128,
    /// Number of holders per GPU index: 0 or 1, but for adoption after the total shrank.
    used_gpus: BTreeMap<u32, u32>,
}

impl Ledger {
    pub fn new(total: Capacity) -> Self {
        Self { total, ..Self::default() }
    }

    pub fn total(&self) -> &Capacity {
        &self.total
    }

    /// CPU millis and memory bytes that nobody holds.
    pub fn free(&self) -> (u64, u64) {
        (
            left(self.total.cpu_millis, self.used_cpu_millis),
            left(self.total.memory_bytes, self.used_memory_bytes),
        )
    }

    /// Indices of the free GPUs that `machine` accepts, ascending.
    pub fn free_gpus<'a>(&'a self, machine: &'a MachineType) -> impl Iterator<Item = u32> + 'a {
        self.total
            .gpus
            .iter()
            .filter(|gpu| machine.accepts(gpu))
            .map(|gpu| gpu.index)
            .filter(|index| self.is_free(*index))
    }

    fn is_free(&self, gpu: u32) -> bool {
        self.used_gpus.get(&gpu).copied().unwrap_or(0) == 0
    }

    /// What `machine` would hold if it were placed now, or what is short.
    pub fn fit(&self, machine: &MachineType) -> Result<Allocation, Shortage> {
        self.fit_in_both(self, machine)
    }

    /// As [`Ledger::fit`], but only of what is free in `other` too.
    pub fn fit_in_both(&self, other: &Self, machine: &MachineType) -> Result<Allocation, Shortage> {
        let (free_millis, free_bytes) = {
            let ((millis, bytes), (other_millis, other_bytes)) = (self.free(), other.free());
            (millis.min(other_millis), bytes.min(other_bytes))
        };
        if machine.cpu_millis > free_millis {
            return Err(Shortage::Cpu { wanted_millis: machine.cpu_millis, free_millis });
        }
        if machine.memory_bytes > free_bytes {
            return Err(Shortage::Memory { wanted_bytes: machine.memory_bytes, free_bytes });
        }
        let wanted = machine.gpus as usize;
        let mut gpus: Vec<u32> =
            self.free_gpus(machine).filter(|index| other.is_free(*index)).collect();
        if gpus.len() < wanted {
            let free = u32::try_from(gpus.len()).unwrap_or(u32::MAX);
            return Err(Shortage::Gpus { wanted: machine.gpus, free });
        }
        gpus.truncate(wanted);
        gpus.sort_unstable();
        Ok(Allocation {
            machine_type: machine.name.clone(),
            cpu_millis: machine.cpu_millis,
            memory_bytes: machine.memory_bytes,
            gpus,
        })
    }

    /// As much of `machine` as is free.
    pub fn part(&self, machine: &MachineType) -> Allocation {
        let (free_millis, free_bytes) = self.free();
        Allocation {
            machine_type: machine.name.clone(),
            cpu_millis: machine.cpu_millis.min(free_millis),
            memory_bytes: machine.memory_bytes.min(free_bytes),
            gpus: self.free_gpus(machine).take(machine.gpus as usize).collect(),
        }
    }

    /// Whether `machine` could ever be placed here, with everything else gone.
    pub fn could_ever_fit(&self, machine: &MachineType) -> Result<(), Shortage> {
        Self::new(self.total.clone()).fit(machine).map(drop)
    }

    pub fn take(&mut self, allocation: &Allocation) {
        self.used_cpu_millis += u128::from(allocation.cpu_millis);
        self.used_memory_bytes += u128::from(allocation.memory_bytes);
        for index in &allocation.gpus {
            *self.used_gpus.entry(*index).or_default() += 1;
        }
    }

    pub fn give_back(&mut self, allocation: &Allocation) {
        self.used_cpu_millis =
            self.used_cpu_millis.saturating_sub(u128::from(allocation.cpu_millis));
        self.used_memory_bytes =
            self.used_memory_bytes.saturating_sub(u128::from(allocation.memory_bytes));
        for index in &allocation.gpus {
            if let Some(holders) = self.used_gpus.get_mut(index) {
                *holders = holders.saturating_sub(1);
            }
        }
    }
}

fn left(total: u64, used: u128) -> u64 {
    u64::try_from(u128::from(total).saturating_sub(used)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn node() -> Ledger {
        let gpu =
            |index, kind: &str, gib| Gpu { index, kind: kind.into(), memory_bytes: gib * GIB };
        Ledger::new(Capacity {
            cpu_millis: 4_000,
            memory_bytes: 8 * GIB,
            gpus: vec![gpu(0, "L40", 48), gpu(1, "H100", 80), gpu(2, "H100", 80)],
        })
    }

    fn machine(cpu_millis: u64, gib: u64, gpus: u32, kind: Option<&str>) -> MachineType {
        MachineType {
            name: "m".into(),
            cpu_millis,
            memory_bytes: gib * GIB,
            gpus,
            gpu_kind: kind.map(str::to_owned),
            gpu_memory_bytes: 0,
        }
    }

    #[test]
    fn each_runner_gets_devices_of_its_own() {
        let mut ledger = node();
        let wish = machine(1_000, 1, 1, Some("h100"));
        let first = ledger.fit(&wish).unwrap();
        assert_eq!(first.gpus, [1]);
        ledger.take(&first);
        let second = ledger.fit(&wish).unwrap();
        assert_eq!(second.gpus, [2]);
        ledger.take(&second);
        assert_eq!(ledger.fit(&wish), Err(Shortage::Gpus { wanted: 1, free: 0 }));
        ledger.give_back(&first);
        assert_eq!(ledger.fit(&wish).unwrap().gpus, [1]);
    }

    #[test]
    fn what_another_ledger_holds_is_not_offered() {
        let (ledger, mut kept) = (node(), node());
        kept.take(&kept.fit(&machine(3_000, 7, 1, Some("H100"))).unwrap());
        let wish = machine(1_000, 1, 1, Some("H100"));
        assert_eq!(ledger.fit_in_both(&kept, &wish).unwrap().gpus, [2]);
        let wish = machine(1_001, 1, 0, None);
        assert!(ledger.fit_in_both(&kept, &wish).is_err());
    }

    #[test]
    fn part_is_what_there_is() {
        let mut ledger = node();
        ledger.take(&ledger.fit(&machine(3_000, 0, 1, Some("H100"))).unwrap());
        let part = ledger.part(&machine(2_000, 1, 2, Some("H100")));
        assert_eq!((part.cpu_millis, part.memory_bytes, part.gpus), (1_000, GIB, vec![2]));
    }

    #[test]
    fn gpu_memory_narrows_the_choice() {
        let wish = MachineType { gpu_memory_bytes: 60 * GIB, ..machine(0, 0, 3, None) };
        assert_eq!(node().fit(&wish), Err(Shortage::Gpus { wanted: 3, free: 2 }));
    }

    #[test]
    fn shortages_say_what_is_short() {
        let ledger = node();
        let check = |wish, expected: &str| {
            assert_eq!(ledger.fit(&wish).unwrap_err().to_string(), expected);
        };
        check(machine(5_000, 0, 0, None), "wants 5000 CPU millis, 4000 are free");
        check(machine(0, 9, 0, None), "wants 9216 MiB of memory, 8192 are free");
        check(machine(0, 0, 2, Some("L40")), "wants 2 GPU(s), 1 fitting are free");
    }

    #[test]
    fn giving_back_restores_the_ledger() {
        let mut ledger = node();
        let all = ledger.fit(&machine(4_000, 8, 3, None)).unwrap();
        ledger.take(&all);
        assert_eq!(ledger.free(), (0, 0));
        assert!(ledger.could_ever_fit(&machine(4_000, 8, 3, None)).is_ok());
        ledger.give_back(&all);
        assert_eq!(ledger.free(), (4_000, 8 * GIB));
        assert!(ledger.fit(&machine(4_000, 8, 3, None)).is_ok());
    }
}
