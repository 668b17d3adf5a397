//! What bytes cost in time.

use serde::Serialize;

use super::SubjectLayer;
use crate::layer::EntryKind;

/// What gzip gives of plain bytes in a second on one core. A pull of 1.34 GB of files takes our puller 5.7 s of processor
/// time, of which inflating is about 4.5 s.
const INFLATED_BYTES_PER_SECOND: u64 = 300_000_000;
/// 1 Gbit/s.
const DOWNLOADED_BYTES_PER_SECOND: u64 = 125_000_000;
/// What files compress to where nobody says: programs and libraries come to about two fifths by gzip.
const COMPRESSED_PERCENT: u64 = 40;

/// How fast an image comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rates {
    /// Of compressed bytes.
    pub downloaded_bytes_per_second: u64,
    /// Of plain bytes.
    pub inflated_bytes_per_second: u64,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            downloaded_bytes_per_second: DOWNLOADED_BYTES_PER_SECOND,
            inflated_bytes_per_second: INFLATED_BYTES_PER_SECOND,
        }
    }
}

impl Rates {
    /// Downloading and inflating go on at the same time: the slower one counts.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn pull_seconds(&self, compressed_bytes: u64, bytes: u64) -> f64 {
        let download = compressed_bytes as f64 / self.downloaded_bytes_per_second.max(1) as f64;
        let inflate = bytes as f64 / self.inflated_bytes_per_second.max(1) as f64;
        download.max(inflate)
    }
}

/// Of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) compressed_bytes: u64,
    pub(super) bytes: u64,
    pub(super) files: usize,
}

impl Size {
    pub(super) fn of(layer: &SubjectLayer) -> Self {
        let (mut bytes, mut files) = (0, 0);
        for entry in &layer.entries {
            if let EntryKind::File(content) = entry.kind {
                bytes += content.bytes();
                files += 1;
            }
        }
        let compressed_bytes = layer.compressed_bytes.unwrap_or(bytes * COMPRESSED_PERCENT / 100);
        Self { compressed_bytes, bytes, files }
    }

    /// The part of the layer's compressed bytes that so many plain ones have.
    pub(super) fn compressed(&self, bytes: u64) -> u64 {
        let share = u128::from(bytes) * u128::from(self.compressed_bytes);
        u64::try_from(share / u128::from(self.bytes.max(1))).unwrap_or(u64::MAX)
    }
}
