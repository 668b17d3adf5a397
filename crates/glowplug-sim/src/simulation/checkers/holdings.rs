//! What runners hold of what the node has, counted once more.

use std::collections::BTreeMap;

use glowplug_core::resources::{Allocation, Capacity, MachineType};

use super::{Verdict, ensure};

#[derive(Debug)]
pub(super) struct Holdings {
    capacity: Capacity,
    cpu_millis: u128,
    memory_bytes: u128,
    /// Holders by index of the GPU; those that nobody holds are not in it.
    gpus: BTreeMap<u32, u32>,
}

impl Holdings {
    pub(super) fn new(capacity: Capacity) -> Self {
        Self { capacity, cpu_millis: 0, memory_bytes: 0, gpus: BTreeMap::new() }
    }

    pub(super) fn resize(&mut self, capacity: Capacity) {
        self.capacity = capacity;
    }

    pub(super) fn take(&mut self, wanted: &[MachineType], given: &Allocation) -> Verdict<()> {
        let machine = wanted.iter().find(|machine| machine.name == given.machine_type);
        let machine = machine.ok_or("a machine type was given that the app does not name")?;
        let same = given.cpu_millis == machine.cpu_millis
            && given.memory_bytes == machine.memory_bytes
            && given.gpus.len() == machine.gpus as usize;
        ensure(same, "what was given is not what the machine type has")?;
        self.cpu_millis += u128::from(given.cpu_millis);
        self.memory_bytes += u128::from(given.memory_bytes);
        let cpu_fits = self.cpu_millis <= u128::from(self.capacity.cpu_millis);
        ensure(given.cpu_millis == 0 || cpu_fits, "more CPU was given out than there is")?;
        let memory_fits = self.memory_bytes <= u128::from(self.capacity.memory_bytes);
        ensure(given.memory_bytes == 0 || memory_fits, "more memory was given out than there is")?;
        for index in &given.gpus {
            let accepted = self.accepted(machine).any(|gpu| gpu == *index);
            ensure(accepted, "a GPU was given out that is not there, or of the wrong kind")?;
            let holders = self.gpus.entry(*index).or_default();
            *holders += 1;
            ensure(*holders == 1, "a GPU was given out twice")?;
        }
        Ok(())
    }

    /// The GPUs that a machine type may get.
    fn accepted<'a>(&'a self, machine: &'a MachineType) -> impl Iterator<Item = u32> + 'a {
        let right = move |kind: &str, memory_bytes: u64| {
            let wanted = machine.gpu_kind.as_deref();
            memory_bytes >= machine.gpu_memory_bytes
                && wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(kind))
        };
        let fitting =
            self.capacity.gpus.iter().filter(move |gpu| right(&gpu.kind, gpu.memory_bytes));
        fitting.map(|gpu| gpu.index)
    }

    pub(super) fn give_back(&mut self, held: &Allocation) {
        self.cpu_millis -= u128::from(held.cpu_millis);
        self.memory_bytes -= u128::from(held.memory_bytes);
        for index in &held.gpus {
            if let Some(holders) = self.gpus.get_mut(index) {
                *holders -= 1;
                if *holders == 0 {
                    self.gpus.remove(index);
                }
            }
        }
    }

    /// Whether one of the machine types would fit now.
    pub(super) fn have_room(&self, wanted: &[MachineType]) -> bool {
        wanted.iter().any(|machine| {
            let free = self.accepted(machine).filter(|index| !self.gpus.contains_key(index));
            self.cpu_millis + u128::from(machine.cpu_millis) <= u128::from(self.capacity.cpu_millis)
                && self.memory_bytes + u128::from(machine.memory_bytes)
                    <= u128::from(self.capacity.memory_bytes)
                && free.count() >= machine.gpus as usize
        })
    }
}

#[cfg(test)]
mod tests {
    use glowplug_core::resources::Gpu;

    use super::*;

    fn node() -> Holdings {
        let gpu = |index, kind: &str| Gpu { index, kind: kind.into(), memory_bytes: 80 };
        let gpus = vec![gpu(0, "A"), gpu(1, "B")];
        Holdings::new(Capacity { cpu_millis: 2_000, memory_bytes: 100, gpus })
    }

    fn machine(cpu_millis: u64, memory_bytes: u64, gpus: u32) -> MachineType {
        let gpu_kind = Some("a".into());
        MachineType {
            name: "m".into(),
            cpu_millis,
            memory_bytes,
            gpus,
            gpu_kind,
            gpu_memory_bytes: 80,
        }
    }

    fn given(cpu_millis: u64, memory_bytes: u64, gpus: &[u32]) -> Allocation {
        Allocation { machine_type: "m".into(), cpu_millis, memory_bytes, gpus: gpus.to_vec() }
    }

    #[test]
    fn what_is_not_there_is_found() {
        let check = |machine: MachineType, given: &[Allocation], expected: Verdict<()>| {
            let mut holdings = node();
            let all = given
                .iter()
                .try_for_each(|given| holdings.take(std::slice::from_ref(&machine), given));
            assert_eq!(all, expected, "{given:?}");
        };
        let fine = given(1_000, 50, &[0]);
        check(machine(1_000, 50, 1), std::slice::from_ref(&fine), Ok(()));
        let twice = "a GPU was given out twice";
        check(machine(1_000, 50, 1), &[fine.clone(), fine], Err(twice));
        let wrong = "a GPU was given out that is not there, or of the wrong kind";
        check(machine(0, 0, 1), &[given(0, 0, &[1])], Err(wrong));
        check(machine(0, 0, 1), &[given(0, 0, &[2])], Err(wrong));
        let other = "what was given is not what the machine type has";
        check(machine(0, 0, 1), &[given(0, 0, &[])], Err(other));
        check(machine(1, 0, 0), &[given(0, 0, &[])], Err(other));
        let cpu = "more CPU was given out than there is";
        check(machine(1_001, 0, 0), &[given(1_001, 0, &[]), given(1_001, 0, &[])], Err(cpu));
        let memory = "more memory was given out than there is";
        check(machine(0, 51, 0), &[given(0, 51, &[]), given(0, 51, &[])], Err(memory));
        let unnamed = Allocation { machine_type: "n".into(), ..given(0, 0, &[]) };
        let foreign = "a machine type was given that the app does not name";
        check(machine(0, 0, 0), &[unnamed], Err(foreign));
    }

    #[test]
    fn room_comes_back() {
        let mut holdings = node();
        let wanted = [machine(2_000, 0, 1)];
        let all = given(2_000, 0, &[0]);
        holdings.take(&wanted, &all).unwrap();
        assert!(!holdings.have_room(&wanted));
        holdings.give_back(&all);
        assert!(holdings.have_room(&wanted));
        assert!(!holdings.have_room(&[machine(0, 0, 2)]));
    }
}
