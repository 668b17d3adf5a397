//! Checksums of what is written, taken on the way.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ContentId;

const READ_BYTES: usize = 256 << 10;

/// What a file should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sum {
    pub(super) bytes: u64,
    pub(super) hash: ContentId,
}

impl Sum {
    /// Of the file as it is now.
    pub(super) fn of_file(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Self { bytes, hash: hasher.finalize().into() }),
                read => {
                    hasher.update(&buffer[..read]);
                    bytes += read as u64;
                }
            }
        }
    }
}

/// A file and the sum of what was written into it. Better written in large pieces.
#[derive(Debug)]
pub struct Summed {
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Summed {
    pub(super) fn new(file: File) -> Self {
        Self { file, hasher: blake3::Hasher::new(), bytes: 0 }
    }

    pub(super) fn sum(&self) -> Sum {
        Sum { bytes: self.bytes, hash: self.hasher.finalize().into() }
    }
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
