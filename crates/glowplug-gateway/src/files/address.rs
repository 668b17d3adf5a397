//! Addresses of files and uploads, as the one who gets them can reach them.

use http::header::{self, HeaderMap};
use http::uri::Authority;

use super::name::encoded;
use super::{FileView, Files, UploadView};
use crate::dispatch::Peer;

/// Scheme and authority, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base(String);

impl Base {
    /// As the caller reached us. Behind one of fal's names that is the socket itself: the name means us to
    /// this caller alone, and the address is handed to apps.
    pub(super) fn of(files: &dyn Files, peer: &Peer, headers: &HeaderMap) -> Self {
        if let Some(url) = files.public_url() {
            return Self(url.trim_end_matches('/').to_owned());
        }
        let named = headers.get(header::HOST).and_then(|value| value.to_str().ok());
        match named.and_then(|host| host.parse::<Authority>().ok()) {
            Some(authority) if !peer.as_fal => Self(format!("{}://{authority}", peer.scheme)),
            _ if peer.as_fal => Self(format!("http://{}", peer.local)),
            _ => Self(format!("{}://{}", peer.scheme, peer.local)),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn named(&self, id: &str, name: &str) -> String {
        format!("{}/files/{id}/{}", self.0, encoded(name))
    }

    pub(super) fn file(&self, file: &FileView) -> String {
        self.named(&file.id, &file.file_name)
    }

    pub(super) fn future_file(&self, id: &str, name: &str) -> String {
        self.named(id, name)
    }

    pub(super) fn of_upload(&self, upload: &UploadView) -> String {
        self.named(&upload.file, &upload.file_name)
    }

    pub(super) fn granted(&self, file: &str, token: &str) -> String {
        format!("{}/files/upload/{file}?token={token}", self.0)
    }
}
