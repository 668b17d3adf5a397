//! Random histories: the store on the disk, closed and opened again now and then, answers as the one
//! in memory does.

use glowplug_core::Timestamp;
use glowplug_store::{
    Bounds, MemoryStore, QueuedRequest, Retention, SqliteOptions, SqliteStore, Store, StoreError,
};
use proptest::prelude::*;

use crate::samples::{at, completion, decision, fast, id, key, log_line, request};

/// Few, so that histories meet them again.
const IDS: u128 = 6;
pub(crate) const BOUNDS: Bounds = Bounds { request_log_lines_max: 3, journal_records_max: 4 };

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Submit { number: u128, body: Vec<u8> },
    Complete { number: u128, ended_at: u64, body: Vec<u8> },
    Log { number: u128, lines: usize },
    Purge { before: u64, limit: usize },
    PutSetting { app: u8, key: u8, value: u8 },
    DeleteSetting { app: u8, key: u8 },
    PutKey { number: u8, created_at: u64 },
    DeleteKey { number: u8 },
    Journal { subjects: Vec<u8>, records: usize },
    Boot,
    Reopen,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let body = || proptest::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        6 => (0..IDS, body()).prop_map(|(number, body)| Step::Submit { number, body }),
        6 => (0..IDS, 0..20_u64, body())
            .prop_map(|(number, ended_at, body)| Step::Complete { number, ended_at, body }),
        3 => (0..IDS, 0..4_usize).prop_map(|(number, lines)| Step::Log { number, lines }),
        3 => (0..20_u64, 0..4_usize).prop_map(|(before, limit)| Step::Purge { before, limit }),
        2 => (0..2_u8, 0..3_u8, any::<u8>())
            .prop_map(|(app, key, value)| Step::PutSetting { app, key, value }),
        1 => (0..2_u8, 0..3_u8).prop_map(|(app, key)| Step::DeleteSetting { app, key }),
        2 => (0..3_u8, 0..5_u64)
            .prop_map(|(number, created_at)| Step::PutKey { number, created_at }),
        1 => (0..3_u8).prop_map(|number| Step::DeleteKey { number }),
        3 => (proptest::collection::vec(0..3_u8, 0..3), 0..6_usize)
            .prop_map(|(subjects, records)| Step::Journal { subjects, records }),
        1 => Just(Step::Boot),
        2 => Just(Step::Reopen),
    ]
}

/// Does one step and describes its answer.
pub(crate) async fn perform(store: &dyn Store, step: Step) -> String {
    let setting = |app, key| (format!("local/app{app}"), format!("key{key}"));
    match step {
        Step::Submit { number, body } => {
            let answer = store.submit(QueuedRequest { body, ..request(number) }).await;
            format!("{:?}", answer.map_err(|error| error.to_string()))
        }
        Step::Complete { number, ended_at, body } => {
            format!("{:?}", store.complete(id(number), completion(at(ended_at), &body)).await)
        }
        Step::Log { number, lines } => {
            let lines = (0..lines as u64).map(|line| log_line(line, "said")).collect();
            format!("{:?}", store.append_request_logs(id(number), lines).await)
        }
        Step::Purge { before, limit } => {
            format!("{:?}", store.purge(Retention::since(at(before)), limit).await)
        }
        Step::PutSetting { app, key, value } => {
            let (app, key) = setting(app, key);
            format!("{:?}", store.put_setting(app, key, value.to_string()).await)
        }
        Step::DeleteSetting { app, key } => {
            let (app, key) = setting(app, key);
            format!("{:?}", store.delete_setting(app, key).await)
        }
        Step::PutKey { number, created_at } => {
            format!("{:?}", store.put_key(key(&format!("key{number}"), at(created_at))).await)
        }
        Step::DeleteKey { number } => {
            format!("{:?}", store.delete_key(format!("key{number}")).await)
        }
        Step::Journal { subjects, records } => {
            let subjects: Vec<_> = subjects.iter().map(|s| format!("app:{s}")).collect();
            let subjects: Vec<_> = subjects.iter().map(String::as_str).collect();
            let records = (0..records as u64).map(|n| decision(n, &subjects)).collect();
            format!("{:?}", store.append_journal(records).await)
        }
        Step::Boot => format!("{:?}", store.begin_boot().await),
        Step::Reopen => unreachable!("only a store on the disk can be opened again"),
    }
}

/// Everything that can be read.
pub(crate) async fn contents(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let mut all = vec![
        format!("{:?}", store.pending(None, usize::MAX).await?),
        format!("{:?}", store.settings().await?),
        format!("{:?}", store.keys().await?),
    ];
    for number in 0..IDS {
        let id = id(number);
        all.push(format!("{:?}", store.request(id).await?));
        all.push(format!("{:?}", store.response(id).await?));
        all.push(format!("{:?}", store.request_logs(id).await?));
        all.push(format!("{:?}", store.pending(Some(id), 2).await?));
    }
    for subject in 0..3 {
        all.push(format!("{:?}", store.journal(format!("app:{subject}"), 3).await?));
    }
    Ok(all)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_disk_remembers_what_the_memory_does(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let options = SqliteOptions { bounds: BOUNDS, ..fast() };
        let open = || SqliteStore::open(&path, options).unwrap();
        let model = MemoryStore::with_bounds(BOUNDS);
        let mut disk = open();
        runtime.block_on(async {
            for step in steps {
                if matches!(step, Step::Reopen) {
                    drop(disk);
                    disk = open();
                    // A node counts its start before it does anything else.
                    let boot = model.begin_boot().await.unwrap();
                    prop_assert_eq!(disk.begin_boot().await.unwrap(), boot);
                } else {
                    let expected = perform(&model, step.clone()).await;
                    prop_assert_eq!(perform(&*disk, step.clone()).await, expected, "{:?}", step);
                }
            }
            prop_assert_eq!(contents(&*disk).await.unwrap(), contents(&model).await.unwrap());
            let everything = Timestamp::MAX;
            prop_assert_eq!(
                disk.purge(Retention::since(everything), 100).await.unwrap(),
                model.purge(Retention::since(everything), 100).await.unwrap()
            );
            Ok(())
        })?;
    }
}
