//! A body as its row has it.

use std::mem;

use rusqlite::Row;

use crate::records::{Completion, QueuedRequest};

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
    /// Takes the body out of a request.
    pub(super) fn payload(request: &mut QueuedRequest) -> Self {
        let body = mem::take(&mut request.body);
        // What is submitted again under the same key is compared by this.
        let hash = request.idempotency_key.as_ref().map(|_| blake3::hash(&body).into());
        Self { hash, ..Self::in_row(body) }
    }

    /// Takes the body out of an answer.
    pub(super) fn answer(completion: &mut Completion) -> Self {
        Self::in_row(mem::take(&mut completion.response.body))
    }

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
    pub(super) inline: Vec<u8>,
}

impl KeptBody {
    /// From the columns `body_bytes`, `body_hash`, `body_file` and `body`, the first of which is `column`.
    pub(super) fn of(row: &Row<'_>, column: usize) -> rusqlite::Result<Self> {
        Ok(Self { inline: row.get(column + 3)? })
    }
}
