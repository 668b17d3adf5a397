//! The stores that are put beside the model, and how each answer of theirs is told.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use glowplug_core::Timestamp;
use glowplug_store::{
    Accepted, DeliveryAttempt, PostgresOptions, PostgresStore, Retention, SqliteOptions,
    SqliteStore, Store, StoreError,
};
use tempfile::TempDir;

use super::model::{Step, answer, becomes, lines, submitted};
use super::{BOUNDS, Place, Subject};
use crate::postgres;
use crate::samples::{at, fast, id};

/// A store in a folder of its own. Absent only while it is opened again.
pub(super) struct Disk {
    store: Option<Arc<SqliteStore>>,
    directory: TempDir,
}

fn open(directory: &Path) -> Arc<SqliteStore> {
    let options = SqliteOptions { bounds: BOUNDS, inline_bytes_max: 100, ..fast() };
    SqliteStore::open(&directory.join("store.db"), options).unwrap()
}

impl Disk {
    pub(super) fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { store: Some(open(directory.path())), directory }
    }

    pub(super) fn store(&self) -> &dyn Store {
        self.store.as_deref().unwrap()
    }

    fn restart(&mut self) {
        self.store = None;
        self.store = Some(open(self.directory.path()));
    }

    /// A copy of the files of a running store is what a crash leaves.
    fn kill(&mut self) {
        let crashed = tempfile::tempdir().unwrap();
        copy(self.directory.path(), crashed.path());
        self.store = Some(open(crashed.path()));
        self.directory = crashed;
    }
}

/// A node on a schema of its own.
pub(super) struct Server {
    store: Arc<PostgresStore>,
    options: PostgresOptions,
}

impl Server {
    pub(super) async fn open() -> Self {
        let options = postgres::fresh();
        Self { store: postgres::open(&options).await, options }
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    async fn restart(&mut self) {
        self.store.close().await;
        self.store = postgres::open(&self.options).await;
    }

    /// A node that is killed does not give its lease back. Here it runs out at once.
    async fn kill(&mut self) {
        self.store = postgres::open(&self.options).await;
        let past = "UPDATE nodes SET lease_until = now() - interval '1 second'";
        postgres::bystander(&self.options).await.batch_execute(past).await.unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            match fs::copy(entry.path(), to) {
                // A file that was to be removed may be by now.
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                _ => {}
            }
        }
    }
}

impl Subject {
    pub(super) async fn perform(&mut self, step: &Step) -> String {
        if let Some(request) = submitted(step) {
            return match self.store().submit(request).await {
                Ok(Accepted::New) => "new".to_owned(),
                Ok(Accepted::Before(earlier)) => format!("before {earlier}"),
                Err(StoreError::KeyReused { earlier }) => format!("key of {earlier}"),
                Err(StoreError::Duplicate(_)) => "duplicate".to_owned(),
                Err(error) => panic!("{error}"),
            };
        }
        let everything = Retention::since(Timestamp::ZERO);
        match *step {
            Step::Complete { number, ended_at, bytes } => {
                let done = self.store().complete(id(number), answer(ended_at, bytes)).await;
                format!("{:?}", done.unwrap())
            }
            Step::Adopt { limit } => {
                let heads = self.store().adopt(limit).await.unwrap();
                format!("{:?}", heads.iter().map(|head| head.id).collect::<Vec<_>>())
            }
            Step::Log { number, lines: count } => {
                self.store().append_request_logs(id(number), lines(count)).await.unwrap();
                String::new()
            }
            Step::PurgeOld { before, limit } => {
                self.purge(Retention::since(at(before)), limit).await
            }
            Step::PurgeMany { keep, limit } => {
                self.purge(Retention { requests_max: keep, ..everything }, limit).await
            }
            Step::PurgeLarge { bytes, limit } => {
                self.purge(Retention { bytes_max: bytes, ..everything }, limit).await
            }
            Step::Due { now, limit } => {
                let due = self.store().due_deliveries(at(now), limit).await.unwrap();
                let due: Vec<_> = due.iter().map(|each| (each.request, each.attempts)).collect();
                format!("{due:?}")
            }
            Step::Called { number, at: seconds, becomes: state } => {
                let call = DeliveryAttempt {
                    at: at(seconds),
                    took: std::time::Duration::ZERO,
                    status: None,
                    problem: None,
                };
                let state = becomes(state, seconds);
                self.store().called(id(number), call, state).await.unwrap();
                String::new()
            }
            Step::Keep { number } => {
                let all =
                    self.store().export(glowplug_store::Place::START, usize::MAX).await.unwrap().0;
                let found = all.into_iter().find(|whole| whole.request.id == id(number));
                let is_there = found.is_some();
                self.kept = found.or(self.kept.take());
                is_there.to_string()
            }
            Step::ImportKept => match self.kept.clone() {
                Some(whole) => self.store().import(whole).await.unwrap().to_string(),
                None => "nothing".to_owned(),
            },
            Step::Restart | Step::Kill => {
                let is_kill = matches!(step, Step::Kill);
                match &mut self.place {
                    Place::Disk(disk) if is_kill => disk.kill(),
                    Place::Disk(disk) => disk.restart(),
                    Place::Server(server) if is_kill => server.kill().await,
                    Place::Server(server) => server.restart().await,
                    Place::Memory(_) => {}
                }
                self.store().begin_boot().await.unwrap().to_string()
            }
            Step::Submit { .. } | Step::SubmitKeyed { .. } => unreachable!("done above"),
        }
    }

    async fn purge(&self, retention: Retention, limit: usize) -> String {
        self.store().purge(retention, limit).await.unwrap().to_string()
    }

    /// Everything that can be read.
    pub(super) async fn contents(&self, ids: u128) -> Vec<String> {
        let store = self.store();
        let pending = store.pending(None, usize::MAX).await.unwrap();
        let all = store.export(glowplug_store::Place::START, usize::MAX).await.unwrap().0;
        let all: Vec<_> = all.iter().map(|whole| (&whole.request, &whole.completion)).collect();
        let due = store.next_delivery().await.unwrap();
        let mut contents = vec![format!("{pending:?}"), format!("{all:?}"), format!("{due:?}")];
        for number in 0..ids {
            let id = id(number);
            let ahead = store.ahead(id).await.unwrap();
            let found = match store.request(id).await.unwrap() {
                Some(record) => {
                    let answer = store.response(id).await.unwrap().map(|response| response.body);
                    let lines = store.request_logs(id).await.unwrap().len();
                    let hook = store.delivery(id).await.unwrap();
                    let hook = hook.map(|hook| (hook.state, hook.attempts.len()));
                    Some((record.owner, answer, lines, hook))
                }
                None => None,
            };
            contents.push(format!("{ahead} {found:?}"));
        }
        contents
    }
}
