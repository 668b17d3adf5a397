//! Random histories of the queue, beside a model of it that is as simple as can be: a list that is searched
//! from end to end. Restarts are part of the histories, with and without a clean end.

mod model;
mod subject;

use glowplug_store::{MemoryStore, Store};
use proptest::prelude::*;

use self::model::{Model, Step};
use self::subject::{Disk, Server};
use crate::conformance::BOUNDS;

/// Few, so that histories meet them again.
const IDS: u128 = 6;

fn step() -> impl Strategy<Value = Step> {
    // Some bodies are too large for a row.
    let bytes = || prop_oneof![3 => 0..50_usize, 1 => 200..300_usize];
    prop_oneof![
        8 => (0..IDS, bytes(), any::<bool>(), any::<bool>())
            .prop_map(|(number, bytes, hook, keep)| Step::Submit { number, bytes, hook, keep }),
        4 => (0..IDS, 0..2_u8, 0..2_usize)
            .prop_map(|(number, key, bytes)| Step::SubmitKeyed { number, key, bytes }),
        8 => (0..IDS, 0..20_u64, bytes())
            .prop_map(|(number, ended_at, bytes)| Step::Complete { number, ended_at, bytes }),
        3 => (0..4_usize).prop_map(|limit| Step::Adopt { limit }),
        2 => (0..IDS, 0..4_usize).prop_map(|(number, lines)| Step::Log { number, lines }),
        2 => (0..20_u64, 0..4_usize).prop_map(|(before, limit)| Step::PurgeOld { before, limit }),
        1 => (0..4_u64, 0..4_usize).prop_map(|(keep, limit)| Step::PurgeMany { keep, limit }),
        1 => (0..400_u64, 0..4_usize).prop_map(|(bytes, limit)| Step::PurgeLarge { bytes, limit }),
        3 => (0..600_u64, 0..3_usize).prop_map(|(now, limit)| Step::Due { now, limit }),
        3 => (0..IDS, 0..600_u64, 0..3_u8)
            .prop_map(|(number, at, becomes)| Step::Called { number, at, becomes }),
        1 => (0..IDS).prop_map(|number| Step::Keep { number }),
        2 => Just(Step::ImportKept),
        2 => Just(Step::Restart),
        1 => Just(Step::Kill),
    ]
}

fn histories() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..60)
}

fn check(open: impl AsyncFnOnce() -> Subject, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut model, mut subject) = (Model::new(BOUNDS.request_log_lines_max), open().await);
        subject.store().begin_boot().await.unwrap();
        for step in steps {
            let expected = model.perform(&step);
            let found = subject.perform(&step).await;
            prop_assert_eq!(&found, &expected, "{:?}", step);
        }
        prop_assert_eq!(subject.contents(IDS).await, model.contents(IDS));
        Ok(())
    })
}

/// A store and what belongs to it.
pub(crate) struct Subject {
    place: Place,
    /// What was exported, to be imported later.
    kept: Option<glowplug_store::WholeRequest>,
}

enum Place {
    Memory(Box<MemoryStore>),
    Disk(Disk),
    Server(Server),
}

impl Subject {
    fn store(&self) -> &dyn Store {
        match &self.place {
            Place::Memory(store) => &**store,
            Place::Disk(disk) => disk.store(),
            Place::Server(server) => server.store(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn memory_does_as_the_model(steps in histories()) {
        let store = Box::new(MemoryStore::with_bounds(BOUNDS));
        check(async || Subject { place: Place::Memory(store), kept: None }, steps)?;
    }

    #[test]
    fn the_disk_does_as_the_model(steps in histories()) {
        check(async || Subject { place: Place::Disk(Disk::open()), kept: None }, steps)?;
    }
}

proptest! {
    // Each step waits for a server and its disk.
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn the_server_does_as_the_model(steps in histories()) {
        let open = async || Subject { place: Place::Server(Server::open().await), kept: None };
        check(open, steps)?;
    }
}
