//! The files of the node: the store of `glowplug-artifacts` as the gateway uses it, and what sweeps it.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
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

use crate::clock::Clock;
use crate::config::FilesConfig;
use crate::shared::Shared;

/// Where the store keeps what signs tokens, so that nodes that share it accept each other's.
const TOKEN_SECRET: &str = "token_secret";
/// Between two looks for files whose time is over. They are not given out any more before.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// Files, and the key of all tokens.
pub(crate) struct NodeFiles {
    store: Arc<FileStore>,
    clock: Clock,
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
    ) -> anyhow::Result<Self> {
        let secret = TokenKey::secret()?;
        let secret = store.claim_setting(String::new(), TOKEN_SECRET.to_owned(), secret).await?;
        let tokens = TokenKey::open(&secret)?;
        let options = files::Options {
            file_bytes_max: config.bytes_max,
            total_bytes_max: config.total_bytes_max,
            retention: config.retention,
            ..files::Options::default()
        };
        let (folder, now) = (data_dir.join("files"), clock.now());
        let opening = tokio::task::spawn_blocking(move || FileStore::open(&folder, options, now));
        let store = opening.await.context("opening the files was interrupted")??;
        Ok(Self { store, clock, tokens, app_tokens: AppTokens::default() })
    }

    fn record(&self, id: &str) -> Option<Arc<Record>> {
        self.store.find(id.parse().ok()?, self.clock.now())
    }
}

/// Drops files and uploads whose time is over, for as long as the node runs.
pub(crate) async fn sweep(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        match shared.files.store.sweep(shared.files.clock.now()).await {
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
    fn public_url(&self) -> Option<&str> {
        None
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
            let record = self
                .store
                .put_as(id, stored(file), now, body)
                .await
                .map_err(|error| problem(&error))?;
            Ok(view(&record))
        })
    }

    fn find(&self, id: &str) -> Option<FileView> {
        self.record(id).map(|record| view(&record))
    }

    fn read(&self, id: &str) -> BoxFuture<'_, Result<Reader, Problem>> {
        let record = self.record(id);
        Box::pin(async move {
            let record = record.ok_or_else(no_file)?;
            let content = self.store.content(&record).await.map_err(|error| problem(&error))?;
            Ok(reader(content))
        })
    }

    fn delete(&self, id: &str) -> BoxFuture<'_, Result<bool, Problem>> {
        let id = parsed::<FileId>(id);
        Box::pin(async move { self.store.delete(id?).await.map_err(|error| problem(&error)) })
    }

    fn begin(&self, file: NewFile) -> BoxFuture<'_, Result<UploadView, Problem>> {
        Box::pin(async move {
            let (file_name, owner) = (file.file_name.clone(), file.owner.clone());
            let begun = self.store.begin_upload(stored(file), self.clock.now()).await;
            let begun = begun.map_err(|error| problem(&error))?;
            let (id, file) = (begun.upload.to_string(), begun.file.to_string());
            Ok(UploadView { id, file, file_name, owner })
        })
    }

    fn upload(&self, id: &str) -> Option<UploadView> {
        let (file, about) = self.store.upload(id.parse().ok()?)?;
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
            let part = self.store.put_part(upload, number, length, now, body).await;
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
            let record = self.store.complete_upload(file?, upload?, parts, now).await;
            Ok(view(&*record.map_err(|error| problem(&error))?))
        })
    }

    fn abort(&self, upload: &str) -> BoxFuture<'_, Result<bool, Problem>> {
        let upload = parsed::<UploadId>(upload);
        Box::pin(
            async move { self.store.abort_upload(upload?).await.map_err(|error| problem(&error)) },
        )
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
        E::Full { .. } => ErrorType::StorageFull,
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
