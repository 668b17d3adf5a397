//! Random histories: the server, left and joined again now and then, answers as the memory does.

use glowplug_store::{MemoryStore, PostgresOptions, Store};
use proptest::prelude::*;

use super::{fresh, open};
use crate::model::{BOUNDS, Step, contents, perform, step};

proptest! {
    // Each step waits for the disk.
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn the_server_remembers_what_the_memory_does(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let options = PostgresOptions { bounds: BOUNDS, ..fresh() };
        let model = MemoryStore::with_bounds(BOUNDS);
        runtime.block_on(async {
            let mut store = open(&options).await;
            for step in steps {
                if matches!(step, Step::Reopen) {
                    store.close().await;
                    store = open(&options).await;
                    let boot = model.begin_boot().await.unwrap();
                    prop_assert_eq!(store.begin_boot().await.unwrap(), boot);
                } else {
                    let expected = perform(&model, step.clone()).await;
                    prop_assert_eq!(perform(&*store, step.clone()).await, expected, "{:?}", step);
                }
            }
            prop_assert_eq!(contents(&*store).await.unwrap(), contents(&model).await.unwrap());
            store.close().await;
            Ok(())
        })?;
    }
}
