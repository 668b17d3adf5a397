//! Files that callers uploaded: what is kept, and what became of uploads.

use std::sync::atomic::AtomicU64;

use glowplug_artifacts::files::{Error, Usage};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::as_gauge;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UploadLabels {
    outcome: &'static str,
}

#[derive(Debug, Default)]
pub(super) struct FileSeries {
    files: Gauge,
    bytes: Gauge,
    unfinished: Gauge,
    uploads: Family<UploadLabels, Counter>,
    uploaded: Counter<u64, AtomicU64>,
}

impl FileSeries {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("files", "Uploaded files now", self.files.clone());
        registry.register_with_unit(
            "files_kept",
            "What files and parts of unfinished uploads take now",
            Unit::Bytes,
            self.bytes.clone(),
        );
        registry.register(
            "file_uploads_unfinished",
            "Uploads in parts now",
            self.unfinished.clone(),
        );
        registry.register("file_uploads", "Uploads ended, by outcome", self.uploads.clone());
        registry.register_with_unit(
            "file_uploads_kept",
            "Bytes of files that were uploaded",
            Unit::Bytes,
            self.uploaded.clone(),
        );
    }

    pub(super) fn kept(&self, usage: Usage) {
        self.files.set(as_gauge(usage.files));
        self.bytes.set(i64::try_from(usage.bytes).unwrap_or(i64::MAX));
        self.unfinished.set(as_gauge(usage.uploads));
    }

    /// `kept`: its bytes. An upload in parts ends when it is complete; what becomes of a part is not counted.
    pub(super) fn uploaded(&self, kept: Result<u64, &Error>) {
        let outcome = match kept {
            Ok(bytes) => {
                self.uploaded.inc_by(bytes);
                "kept"
            }
            Err(Error::TooLarge { .. } | Error::Full { .. } | Error::Quota { .. }) => "no_room",
            Err(Error::Io { .. } | Error::Closing) => "failed",
            Err(Error::Body { .. }) => "broken_off",
            Err(_) => "refused",
        };
        self.uploads.get_or_create(&UploadLabels { outcome }).inc();
    }
}
