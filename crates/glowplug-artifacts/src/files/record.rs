//! What is known of a file besides its bytes.

use std::time::Duration;

use glowplug_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::incoming::Written;
use super::{Digest, FileId, UploadId};

/// A file that is about to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewFile {
    pub content_type: String,
    /// For people, and never a path.
    pub file_name: String,
    /// Key id of the uploader.
    pub owner: String,
    /// How long the uploader wants it kept.
    pub keep: Option<Duration>,
    /// If it is known ahead.
    #[serde(skip)]
    pub length: Option<u64>,
}

impl NewFile {
    pub(super) fn record(
        self,
        id: FileId,
        written: &Written,
        now: Timestamp,
        retention: Duration,
    ) -> Record {
        Record {
            id,
            content: written.digest,
            bytes: written.bytes,
            content_type: self.content_type,
            file_name: self.file_name,
            created_at: now,
            expires_at: Some(now + self.keep.unwrap_or(retention)),
            owner: self.owner,
            upload: None,
        }
    }
}

/// A file that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub id: FileId,
    pub content: Digest,
    pub bytes: u64,
    pub content_type: String,
    pub file_name: String,
    #[serde(with = "micros")]
    pub created_at: Timestamp,
    #[serde(with = "micros_option")]
    pub expires_at: Option<Timestamp>,
    pub owner: String,
    /// The upload in parts it came from, so that finishing that twice is no mistake.
    pub upload: Option<UploadId>,
}

pub(super) mod micros {
    use glowplug_core::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "how serde calls it")]
    pub(crate) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(at.as_micros())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        u64::deserialize(from).map(Timestamp::from_micros)
    }
}

mod micros_option {
    use glowplug_core::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "how serde calls it")]
    pub(crate) fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(Timestamp::as_micros).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Timestamp::from_micros))
    }
}
