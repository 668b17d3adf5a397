//! The files of the node: the store of `glowplug-artifacts` as the gateway uses it, and what sweeps it.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use glowplug_api::ErrorType;
use glowplug_artifacts::files::{self, Content, FileId, FileStore, PartOrder, Record, UploadId};
use glowplug_gateway::answer::Problem;
use glowplug_gateway::files::{AppTokens, Chunks, FileView, Files, NewFile, Reader, UploadView};
use glowplug_gateway::token::TokenKey;
use glowplug_store::Store;
use tokio::sync::SetOnce;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::FilesConfig;
use crate::metrics::Metrics;
use crate::shared::Shared;

/// Where the store keeps what signs tokens, so that nodes that share it accept each other's.
const TOKEN_SECRET: &str = "token_secret";
/// Between two looks for files whose time is over. They are not given out any more before.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// For the files to be looked through before the node serves. Many take longer; then it serves without them
/// for the time being.
const OPEN_PATIENCE: Duration = Duration::from_secs(2);

type Opening = JoinHandle<files::Result<Arc<FileStore>>>;

/// Files, and the key of all tokens.
pub(crate) struct NodeFiles {
    /// Set once it is open.
    store: SetOnce<Arc<FileStore>>,
    opening: Mutex<Option<Opening>>,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// What addresses of files begin with, if it is not how the uploader named the node.
    public_url: Option<String>,
    pub(crate) tokens: TokenKey,
    /// For the attempts of queued requests.
    pub(crate) app_tokens: AppTokens,
}

impl NodeFiles {
    pub(crate) async fn open(
        data_dir: &Path,
        config: &FilesConfig,
        store: &dyn Store,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let secret = TokenKey::secret()?;
        let secret = store.claim_setting(String::new(), TOKEN_SECRET.to_owned(), secret).await?;
        let tokens = TokenKey::open(&secret)?;
        let defaults = files::Options::default();
        let key_files_max = config.key_files_max.map(|files| files as usize);
        let options = files::Options {
            file_bytes_max: config.bytes_max,
            total_bytes_max: config.total_bytes_max,
            owner_bytes_max: config.key_bytes_max.unwrap_or(defaults.owner_bytes_max),
            owner_files_max: key_files_max.unwrap_or(defaults.owner_files_max),
            retention: config.retention,
            crash_point: glowplug_store::crash_point,
            ..defaults
        };
        let (folder, now) = (data_dir.join("files"), clock.now());
        let mut opening =
            tokio::task::spawn_blocking(move || FileStore::open(&folder, options, now));
        let store = SetOnce::new();
        let opened = tokio::time::timeout(OPEN_PATIENCE, &mut opening).await;
        let opening = if let Ok(opened) = opened {
            drop(store.set(opened.context("opening the files was interrupted")??));
            None
        } else {
            tracing::info!("there are many files: they are served once all were looked at");
            Some(opening)
        };
        let opening = Mutex::new(opening);
        let public_url = config.public_url.clone();
        let app_tokens = AppTokens::default();
        Ok(Self { store, opening, clock, metrics, public_url, tokens, app_tokens })
    }

    /// What is kept now, as far as it is known.
    pub(crate) fn usage(&self) -> files::Usage {
        self.store.get().map_or_else(files::Usage::default, |store| store.usage())
    }

    fn store(&self) -> Result<&Arc<FileStore>, Problem> {
        self.store.get().ok_or_else(|| {
            let detail = "this node has begun just now and is still looking through its files";
            Problem::new(ErrorType::StoreUnavailable, detail)
        })
    }

    /// Sees an opening that took long to its end.
    async fn finish_opening(&self) -> anyhow::Result<&Arc<FileStore>> {
        let opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(opening) = opening {
            let opened = opening.await.context("opening the files was interrupted")??;
            tracing::info!(files = opened.usage().files, "all files are served");
            drop(self.store.set(opened));
        }
        Ok(self.store.wait().await)
    }

    /// What the uploader is told of how its upload ended.
    fn ended(&self, kept: files::Result<Arc<Record>>) -> Result<FileView, Problem> {
        self.metrics.file_uploaded(kept.as_ref().map(|record| record.bytes));
        kept.map(|record| view(&record)).map_err(|error| problem(&error))
    }

    fn record(&self, id: &str) -> Option<Arc<Record>> {
        self.store.get()?.find(id.parse().ok()?, self.clock.now())
    }
}

/// Drops files and uploads whose time is over, for as long as the node runs.
pub(crate) async fn sweep(shared: Arc<Shared>) {
    let store = match shared.files.finish_opening().await {
        Ok(store) => store,
        Err(error) => return tracing::error!("no file can be served: {error:#}"),
    };
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        match store.sweep(shared.files.clock.now()).await {
            Ok(swept) if swept == files::Swept::default() => {}
            Ok(swept) => tracing::info!(
                files = swept.files,
                uploads = swept.uploads,
                "dropped files whose time was over"
            ),
            Err(error) => tracing::error!("files whose time is over are still there: {error}"),
        }
    }
}

impl Files for NodeFiles {
    fn ready(&self) -> Result<(), Problem> {
        self.store().map(drop)
    }

    fn public_url(&self) -> Option<&str> {
        self.public_url.as_deref()
    }

    fn new_id(&self) -> String {
        FileId::random().to_string()
    }

    fn put(
        &self,
        id: Option<String>,
        file: NewFile,
        body: Chunks,
    ) -> BoxFuture<'_, Result<FileView, Problem>> {
        Box::pin(async move {
            let now = self.clock.now();
            let id = match id {
                Some(id) => parsed::<FileId>(&id)?,
                None => FileId::random(),
            };
            self.ended(self.store()?.put_as(id, stored(file), now, body).await)
        })
    }

    fn find(&self, id: &str) -> Option<FileView> {
        self.record(id).map(|record| view(&record))
    }

    fn read(&self, id: &str) -> BoxFuture<'_, Result<Reader, Problem>> {
        let record = self.record(id);
        Box::pin(async move {
            let record = record.ok_or_else(no_file)?;
            let content = self.store()?.content(&record).await.map_err(|error| problem(&error))?;
            Ok(reader(content))
        })
    }

    fn delete(&self, id: &str) -> BoxFuture<'_, Result<bool, Problem>> {
        let id = parsed::<FileId>(id);
        Box::pin(async move { self.store()?.delete(id?).await.map_err(|error| problem(&error)) })
    }

    fn begin(&self, file: NewFile) -> BoxFuture<'_, Result<UploadView, Problem>> {
        Box::pin(async move {
            let (file_name, owner) = (file.file_name.clone(), file.owner.clone());
            let begun = self.store()?.begin_upload(stored(file), self.clock.now()).await;
            let begun = begun.map_err(|error| problem(&error))?;
            let (id, file) = (begun.upload.to_string(), begun.file.to_string());
            Ok(UploadView { id, file, file_name, owner })
        })
    }

    fn upload(&self, id: &str) -> Option<UploadView> {
        let (file, about) = self.store.get()?.upload(id.parse().ok()?)?;
        let (id, file) = (id.to_owned(), file.to_string());
        Some(UploadView { id, file, file_name: about.file_name, owner: about.owner })
    }

    fn part(
        &self,
        upload: String,
        number: u32,
        length: Option<u64>,
        body: Chunks,
    ) -> BoxFuture<'_, Result<String, Problem>> {
        Box::pin(async move {
            let (upload, now) = (parsed::<UploadId>(&upload)?, self.clock.now());
            let part = self.store()?.put_part(upload, number, length, now, body).await;
            Ok(part.map_err(|error| problem(&error))?.etag.to_string())
        })
    }

    fn complete(
        &self,
        file: &str,
        upload: &str,
        parts: Vec<(u32, String)>,
    ) -> BoxFuture<'_, Result<FileView, Problem>> {
        let (file, upload) = (parsed::<FileId>(file), parsed::<UploadId>(upload));
        Box::pin(async move {
            let parts = parts.into_iter().map(|(number, etag)| {
                let etag = etag.parse().map_err(|error| {
                    Problem::new(ErrorType::BadRequest, format!("part {number}: {error}"))
                })?;
                Ok(PartOrder { number, etag })
            });
            let parts = parts.collect::<Result<Vec<_>, Problem>>()?;
            let now = self.clock.now();
            self.ended(self.store()?.complete_upload(file?, upload?, parts, now).await)
        })
    }

    fn abort(&self, upload: &str) -> BoxFuture<'_, Result<bool, Problem>> {
        let upload = parsed::<UploadId>(upload);
        Box::pin(async move {
            self.store()?.abort_upload(upload?).await.map_err(|error| problem(&error))
        })
    }
}

fn reader(content: Content) -> Reader {
    let read = move |range: Range<u64>| -> BoxStream<'static, io::Result<bytes::Bytes>> {
        content.read(range)
    };
    Box::new(read)
}

fn stored(file: NewFile) -> files::NewFile {
    let NewFile { content_type, file_name, owner, keep, length } = file;
    files::NewFile { content_type, file_name, owner, keep, length }
}

fn view(record: &Record) -> FileView {
    FileView {
        id: record.id.to_string(),
        file_name: record.file_name.clone(),
        content_type: record.content_type.clone(),
        bytes: record.bytes,
        sha256: record.content.0,
        owner: record.owner.clone(),
        expires_at: record.expires_at,
    }
}

/// What is written in another way than ours names nothing.
fn parsed<T: std::str::FromStr>(id: &str) -> Result<T, Problem> {
    id.parse().map_err(|_| no_file())
}

fn no_file() -> Problem {
    Problem::new(ErrorType::NotFound, "there is no such file")
}

fn problem(error: &files::Error) -> Problem {
    use files::Error as E;
    let kind = match error {
        E::TooLarge { .. } => ErrorType::PayloadTooLarge,
        E::Full { .. } | E::Quota { .. } => ErrorType::StorageFull,
        E::Exists { .. } | E::Busy { .. } => ErrorType::NotAllowed,
        E::NoFile { .. } | E::NoUpload { .. } => ErrorType::NotFound,
        E::Body { .. } | E::Length { .. } | E::PartNumber { .. } | E::Parts { .. } => {
            ErrorType::BadRequest
        }
        E::Closing => ErrorType::ShuttingDown,
        E::Io { .. } => {
            // Where it is on our disk is not for everyone to know.
            tracing::error!("a file could not be kept or read: {error}");
            let detail = "the disk failed; what happened is in the log of the node";
            return Problem::new(ErrorType::StoreUnavailable, detail);
        }
    };
    Problem::new(kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn uploads_are_counted_by_what_became_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let config = FilesConfig {
            bytes_max: 8,
            total_bytes_max: 1 << 20,
            key_bytes_max: Some(10),
            key_files_max: None,
            retention: SWEEP_INTERVAL,
            public_url: None,
        };
        let metrics = Arc::new(Metrics::new());
        let store = glowplug_store::MemoryStore::default();
        let clock = Clock::start();
        let opened = NodeFiles::open(folder.path(), &config, &store, clock, metrics.clone()).await;
        let files = opened.unwrap();
        let put = async |body: &'static [u8]| {
            let file = NewFile {
                content_type: "a/b".to_owned(),
                file_name: "a".to_owned(),
                owner: "me".to_owned(),
                keep: None,
                length: None,
            };
            let body = futures::stream::iter([Ok(bytes::Bytes::from_static(body))]);
            files.put(None, file, Box::pin(body)).await.map_err(|problem| problem.kind)
        };
        assert!(put(b"8 bytes.").await.is_ok());
        assert_eq!(put(b"9 bytes..").await.unwrap_err(), ErrorType::PayloadTooLarge);
        assert_eq!(put(b"3..").await.unwrap_err(), ErrorType::StorageFull, "beyond its share");
        metrics.files_kept(files.usage());
        let text = metrics.render(&[]);
        for line in [
            "glowplug_files 1",
            "glowplug_files_kept_bytes 8",
            "glowplug_file_uploads_unfinished 0",
            "glowplug_file_uploads_total{outcome=\"kept\"} 1",
            "glowplug_file_uploads_total{outcome=\"no_room\"} 2",
            "glowplug_file_uploads_kept_bytes_total 8",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }

    #[tokio::test]
    async fn many_files_do_not_hold_up_a_node() {
        let folder = tempfile::tempdir().unwrap();
        let options = files::Options { disk_reserve_bytes: 0, ..files::Options::default() };
        let clock = Clock::start();
        let (go_on, wait) = std::sync::mpsc::sync_channel::<()>(1);
        let (root, now) = (folder.path().to_owned(), clock.now());
        let opening = tokio::task::spawn_blocking(move || {
            wait.recv().unwrap();
            FileStore::open(&root, options, now)
        });
        let files = NodeFiles {
            store: SetOnce::new(),
            opening: Mutex::new(Some(opening)),
            clock,
            metrics: Arc::new(Metrics::new()),
            public_url: None,
            tokens: TokenKey::open(&TokenKey::secret().unwrap()).unwrap(),
            app_tokens: AppTokens::default(),
        };
        assert_eq!(files.ready().unwrap_err().kind, ErrorType::StoreUnavailable);
        go_on.send(()).unwrap();
        files.finish_opening().await.unwrap();
        files.ready().unwrap();
    }

    #[test]
    fn the_crash_test_knows_where_files_can_be_lost() {
        let known =
            |point: &&str| glowplug_store::CRASH_POINTS.iter().any(|(name, _)| name == point);
        let unknown: Vec<_> = files::CRASH_POINTS.iter().filter(|point| !known(point)).collect();
        assert_eq!(unknown, [] as [&&str; 0]);
    }
}
