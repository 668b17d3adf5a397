//! A body as its row has it.

use rusqlite::Row;

/// A body on its way into a row.
#[derive(Debug)]
pub(super) struct NewBody {
    pub(super) bytes_total: usize,
    /// Present for every body in a file, and for every payload with an idempotency key.
    pub(super) hash: Option<[u8; 32]>,
    pub(super) file: Option<String>,
    /// Empty if the body is in a file.
    pub(super) inline: Vec<u8>,
}

impl NewBody {
    pub(super) fn in_row(body: Vec<u8>) -> Self {
        Self { bytes_total: body.len(), hash: None, file: None, inline: body }
    }

    pub(super) fn bytes(&self) -> i64 {
        i64::try_from(self.bytes_total).unwrap_or(i64::MAX)
    }
}

/// A body out of its row.
#[derive(Debug)]
pub(super) struct KeptBody {
    pub(super) bytes_total: u64,
    pub(super) hash: Option<[u8; 32]>,
    pub(super) file: Option<String>,
    pub(super) inline: Vec<u8>,
}

impl KeptBody {
    /// From the columns `body_bytes`, `body_hash`, `body_file` and `body`, the first of which is `column`.
    pub(super) fn of(row: &Row<'_>, column: usize) -> rusqlite::Result<Self> {
        let bytes: i64 = row.get(column)?;
        Ok(Self {
            bytes_total: u64::try_from(bytes)
                .map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, bytes))?,
            hash: row.get(column + 1)?,
            file: row.get(column + 2)?,
            inline: row.get(column + 3)?,
        })
    }
}
