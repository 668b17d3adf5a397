//! Files in a table, for a host that is one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use glowplug_api::ErrorType;
use glowplug_gateway::answer::Problem;
use glowplug_gateway::files::{Chunks, FileView, Files, NewFile, Reader, UploadView};

/// What fits into one file.
pub(crate) const FILE_BYTES_MAX: usize = 1_000;

#[derive(Debug, Default)]
pub(crate) struct TableFiles {
    public_url: Option<String>,
    pub(crate) is_opening: bool,
    sequence: AtomicU32,
    kept: Mutex<HashMap<String, (FileView, Vec<u8>)>>,
    uploads: Mutex<HashMap<String, Upload>>,
}

#[derive(Debug)]
struct Upload {
    file: NewFile,
    view: UploadView,
    parts: BTreeMap<u32, Vec<u8>>,
}

impl TableFiles {
    pub(crate) fn reached_at(public_url: &str) -> Self {
        Self { public_url: Some(public_url.to_owned()), ..Self::default() }
    }

    fn keep(&self, id: String, file: NewFile, bytes: Vec<u8>) -> FileView {
        let view = FileView {
            id: id.clone(),
            file_name: file.file_name,
            content_type: file.content_type,
            bytes: bytes.len() as u64,
            sha256: [0xab; 32],
            owner: file.owner,
            expires_at: None,
        };
        self.kept.lock().unwrap().insert(id, (view.clone(), bytes));
        view
    }
}

async fn whole(body: Chunks) -> Result<Vec<u8>, Problem> {
    let bytes = body.map_ok(|chunk| chunk.to_vec()).try_concat().await;
    let bytes = bytes.map_err(|reason| Problem::new(ErrorType::BadRequest, reason))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(Problem::new(ErrorType::PayloadTooLarge, "too large for the table"));
    }
    Ok(bytes)
}

fn none() -> Problem {
    Problem::new(ErrorType::NotFound, "not in the table")
}

impl Files for TableFiles {
    fn ready(&self) -> Result<(), Problem> {
        if self.is_opening {
            return Err(Problem::new(ErrorType::StoreUnavailable, "the table is not set"));
        }
        Ok(())
    }

    fn public_url(&self) -> Option<&str> {
        self.public_url.as_deref()
    }

    fn new_id(&self) -> String {
        format!("f{}", self.sequence.fetch_add(1, Ordering::Relaxed))
    }

    fn put(
        &self,
        id: Option<String>,
        file: NewFile,
        body: Chunks,
    ) -> BoxFuture<'_, Result<FileView, Problem>> {
        async move {
            let bytes = whole(body).await?;
            Ok(self.keep(id.unwrap_or_else(|| self.new_id()), file, bytes))
        }
        .boxed()
    }

    fn find(&self, id: &str) -> Option<FileView> {
        self.kept.lock().unwrap().get(id).map(|(view, _)| view.clone())
    }

    fn read(&self, id: &str) -> BoxFuture<'_, Result<Reader, Problem>> {
        let bytes = self.kept.lock().unwrap().get(id).map(|(_, bytes)| bytes.clone());
        let reader = bytes.ok_or_else(none).map(|bytes| -> Reader {
            Box::new(move |range| {
                let at = |end: u64| usize::try_from(end).unwrap();
                let part = Bytes::copy_from_slice(&bytes[at(range.start)..at(range.end)]);
                stream::iter([Ok(part)]).boxed()
            })
        });
        std::future::ready(reader).boxed()
    }

    fn delete(&self, id: &str) -> BoxFuture<'_, Result<bool, Problem>> {
        let removed = self.kept.lock().unwrap().remove(id).is_some();
        std::future::ready(Ok(removed)).boxed()
    }

    fn begin(&self, file: NewFile) -> BoxFuture<'_, Result<UploadView, Problem>> {
        let (id, file_id) = (format!("u-{}", self.new_id()), self.new_id());
        let (file_name, owner) = (file.file_name.clone(), file.owner.clone());
        let view = UploadView { id: id.clone(), file: file_id, file_name, owner };
        let upload = Upload { file, view: view.clone(), parts: BTreeMap::new() };
        self.uploads.lock().unwrap().insert(id, upload);
        std::future::ready(Ok(view)).boxed()
    }

    fn upload(&self, id: &str) -> Option<UploadView> {
        self.uploads.lock().unwrap().get(id).map(|upload| upload.view.clone())
    }

    fn part(
        &self,
        upload: String,
        number: u32,
        _: Option<u64>,
        body: Chunks,
    ) -> BoxFuture<'_, Result<String, Problem>> {
        async move {
            let bytes = whole(body).await?;
            let mut uploads = self.uploads.lock().unwrap();
            uploads.get_mut(&upload).ok_or_else(none)?.parts.insert(number, bytes);
            Ok(format!("etag-{number}"))
        }
        .boxed()
    }

    fn complete(
        &self,
        file: &str,
        upload: &str,
        parts: Vec<(u32, String)>,
    ) -> BoxFuture<'_, Result<FileView, Problem>> {
        let upload = self.uploads.lock().unwrap().remove(upload);
        let file = file.to_owned();
        async move {
            let upload = upload.filter(|upload| upload.view.file == file).ok_or_else(none)?;
            for (number, etag) in &parts {
                assert_eq!(*etag, format!("etag-{number}"));
            }
            let bytes: Vec<Vec<u8>> = upload.parts.into_values().collect();
            Ok(self.keep(file, upload.file, bytes.concat()))
        }
        .boxed()
    }

    fn abort(&self, upload: &str) -> BoxFuture<'_, Result<bool, Problem>> {
        let removed = self.uploads.lock().unwrap().remove(upload).is_some();
        std::future::ready(Ok(removed)).boxed()
    }
}
