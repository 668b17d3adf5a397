//! The bytes of a file, to be read from anywhere in it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};

use super::incoming::blocking;
use super::{Error, Result};

/// Bytes that are read at once, and the most of a file that is in memory for one reader.
const READ_BYTES: u64 = 256 * 1024;

#[derive(Debug)]
pub struct Content {
    file: Arc<File>,
    bytes: u64,
}

impl Content {
    /// A content that is not as long as it was is refused whole, before anybody got the start of it.
    pub(super) fn open(path: &Path, bytes: u64) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::io("read", path, source))?;
        let found = file.metadata().map_err(|source| Error::io("read", path, source))?.len();
        if found != bytes {
            let reason = format!("it has {found} bytes and was written with {bytes}");
            return Err(Error::io(
                "read",
                path,
                io::Error::new(io::ErrorKind::InvalidData, reason),
            ));
        }
        Ok(Self { file: Arc::new(file), bytes })
    }

    /// The bytes of a range, which ends with the file if it goes beyond.
    pub fn read(self, range: Range<u64>) -> BoxStream<'static, io::Result<Bytes>> {
        let end = range.end.min(self.bytes);
        let file = self.file;
        stream::try_unfold(range.start, move |at| {
            let file = file.clone();
            async move {
                if at >= end {
                    return Ok(None);
                }
                let length = usize::try_from((end - at).min(READ_BYTES)).unwrap_or(usize::MAX);
                let read = blocking(move || {
                    let mut bytes = vec![0; length];
                    Ok(file.read_exact_at(&mut bytes, at).map(|()| Bytes::from(bytes)))
                });
                let chunk = read.await.map_err(io::Error::other)??;
                Ok(Some((chunk, at + length as u64)))
            }
        })
        .boxed()
    }
}
