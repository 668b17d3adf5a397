//! How the file store fails.

use std::io;
use std::path::{Path, PathBuf};

use super::{FileId, PARTS_MAX, UploadId};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a file may have at most {limit} bytes; send less")]
    TooLarge { limit: u64 },
    #[error("there is no room for it: {reason}; delete files, or let the node keep more")]
    Full { reason: String },
    #[error("one key may keep at most {limit} {of} here; delete some of them first")]
    Quota { limit: u64, of: &'static str },
    #[error("the body broke off: {reason}; send it again")]
    Body { reason: String },
    #[error("the body has {got} bytes and was to have {expected}; send it again")]
    Length { got: u64, expected: u64 },
    #[error("file {id} exists already with other bytes; upload them as a new file")]
    Exists { id: FileId },
    #[error("file {id} is being uploaded by another request; wait for that one")]
    Busy { id: FileId },
    #[error("there is no file {id}; it was deleted, or its time is over")]
    NoFile { id: FileId },
    #[error(
        "there is no upload {id}; it may have been finished, given up, or left alone for too long"
    )]
    NoUpload { id: UploadId },
    #[error("part {number} is not a part: their numbers go from 1 to {PARTS_MAX}")]
    PartNumber { number: u32 },
    #[error("the list of parts {problem}")]
    Parts { problem: String },
    #[error("cannot {operation} {path}: {source}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("the file store is closing")]
    Closing,
}

impl Error {
    /// A full disk is not like other failures: what is there can still be read.
    pub(super) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { reason: format!("the disk is full ({source})") }
            }
            _ => Self::Io { operation, path: path.to_owned(), source },
        }
    }
}
