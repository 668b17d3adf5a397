//! The threads of a store and what runs on them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use futures::future::{BoxFuture, join_all};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::columns::Db;
use super::connect::Server;
use super::failure::{Failure, Fault, Kind};
use super::schema;
use super::writer::Write;

/// Threads that do the store's own work.
const THREADS: usize = 2;

/// What ends when the store is closed.
pub(super) struct Tasks {
    /// Absent when the store is closed.
    pub(super) writes: Option<mpsc::Sender<Box<dyn Write>>>,
    pub(super) writers: Vec<JoinHandle<()>>,
    pub(super) watch: Option<JoinHandle<()>>,
}

impl Tasks {
    /// Does all writes that were sent and stops.
    pub(super) async fn end(tasks: &Mutex<Self>) {
        let (writers, watch) = {
            let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.writes = None;
            (std::mem::take(&mut tasks.writers), tasks.watch.take())
        };
        join_all(writers).await;
        if let Some(watch) = watch {
            watch.abort();
            // It says that it was stopped, which is known.
            let _ = watch.await;
        }
    }
}

/// The threads of a store. They must not be waited for where futures run.
pub(super) struct Background(Option<Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Background {
    pub(super) fn start() -> std::io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(THREADS).thread_name("store-postgres").enable_all();
        Ok(Self(Some(builder.build()?)))
    }

    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.0.as_ref().expect("it is taken only when it is dropped").spawn(work)
    }
}

/// What a read does, with what it was given.
pub(super) type Read<D, T> = for<'a> fn(&'a D, &'a Db) -> BoxFuture<'a, Result<T, Failure>>;

pub(super) async fn prepare(server: Server, timeout: Duration) -> Result<(), Failure> {
    let (client, connection) = server.connect().await?;
    // It ends with the client.
    tokio::spawn(connection);
    let migrating = schema::migrate(&client, &server.schema, &server.place);
    match tokio::time::timeout(timeout, migrating).await {
        Ok(migrated) => migrated,
        Err(_) => Err(slow(timeout).into()),
    }
}

pub(super) async fn read<D: Sync, T>(
    pool: Pool,
    timeout: Duration,
    given: D,
    run: Read<D, T>,
) -> Result<T, Failure> {
    let mut is_retry = false;
    loop {
        let db = pool.get().await.map_err(Fault::from)?;
        let outcome = tokio::time::timeout(timeout, run(&given, &db)).await;
        let outcome = outcome.unwrap_or_else(|_| {
            is_retry = true;
            Err(slow(timeout).into())
        });
        match outcome {
            Err(Failure::Fault(fault)) if fault.kind == Kind::Away => {
                // It may be in the middle of an answer.
                drop(Object::take(db));
                if is_retry {
                    return Err(fault.into());
                }
                is_retry = true;
            }
            outcome => return outcome,
        }
    }
}

pub(super) fn ended() -> Fault {
    Fault::new(Kind::Away, "the store is closed; start the node again")
}

pub(super) fn slow(timeout: Duration) -> Fault {
    Fault::new(Kind::Away, format!("the server did not answer within {timeout:?}"))
}
