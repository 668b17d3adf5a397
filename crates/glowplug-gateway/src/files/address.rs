//! Addresses of files and uploads, as the one who gets them can reach them.

use http::Request;

use super::name::encoded;
use super::{FileView, Files, UploadView};
use crate::dispatch::{Peer, authority};

/// Scheme and authority, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base(String);

impl Base {
    /// As the caller reached us. Behind one of fal's names that is the socket itself: the name means us to
    /// this caller alone, and the address is handed to apps.
    pub(super) fn of<B>(files: &dyn Files, peer: &Peer, request: &Request<B>) -> Self {
        if let Some(url) = files.public_url() {
            return Self(url.trim_end_matches('/').to_owned());
        }
        if peer.as_fal {
            return Self(format!("http://{}", peer.local));
        }
        let named = authority(request.headers(), request.uri());
        let named = named.map_or_else(|| peer.local.to_string(), |named| named.to_string());
        Self(format!("{}://{named}", peer.scheme))
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
