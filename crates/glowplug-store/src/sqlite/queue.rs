//! Reading requests in SQL.

use glowplug_core::RequestId;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::columns::{
    count, id_bytes, json_list, optional_timestamp, priority, request_id, row_number, timestamp,
};
use super::failure::Failure;
use super::stored_body::KeptBody;
use crate::records::{CompletedSummary, QueuedRequest, RequestRecord};

/// The columns that [`queued`] reads.
macro_rules! request_columns {
    () => {
        "id, app, path, method, priority, submitted_at, start_deadline, no_retry, retry_config, \
         hint, webhook_url, idempotency_key, keep_payload, caller, requests.headers, \
         requests.body_bytes, requests.body_hash, requests.body_file, requests.body"
    };
}
/// How many they are.
pub(super) const REQUEST_COLUMNS: usize = 19;

/// The join is crossed, so that it starts from the few that are pending.
pub(super) const SELECT_PENDING: &str = concat!(
    "SELECT ",
    request_columns!(),
    " FROM pending CROSS JOIN requests USING (place) \
     WHERE pending.place > ?1 ORDER BY pending.place LIMIT ?2"
);
const SELECT_ONE_PENDING: &str = concat!(
    "SELECT ",
    request_columns!(),
    " FROM requests JOIN pending USING (place) WHERE id = ?1"
);
pub(super) const SELECT_WHOLE: &str = concat!(
    "SELECT ",
    request_columns!(),
    ", requests.place FROM requests WHERE requests.place > ?1 ORDER BY requests.place LIMIT ?2"
);
pub(super) const SELECT_AHEAD: &str = "SELECT count(*) \
     FROM pending CROSS JOIN requests USING (place) WHERE pending.place < ?1 AND app = ?2";

const SELECT_RECORD: &str = "SELECT app, path, submitted_at, \
     coalesce(pending.owner, completions.owner, 0), completions.place IS NOT NULL, at, status, \
     error_message, error_type, inference_seconds, completions.attempts \
     FROM requests LEFT JOIN pending USING (place) LEFT JOIN completions USING (place) \
     WHERE id = ?1";
/// The columns of [`SELECT_RECORD`] and the id. The join is crossed, so that it starts from those that
/// ended last.
pub(super) const SELECT_COMPLETED: &str = "SELECT app, path, submitted_at, completions.owner, true, \
     at, status, error_message, error_type, inference_seconds, attempts, id \
     FROM completions CROSS JOIN requests USING (place) WHERE ?1 IS NULL OR app = ?1 \
     ORDER BY at DESC, place DESC LIMIT ?2";

/// A request without its body, and where that is.
pub(super) type Queued = (QueuedRequest, KeptBody);

pub(super) fn pending(
    conn: &Connection,
    after: Option<RequestId>,
    limit: usize,
) -> Result<Vec<Queued>, Failure> {
    let after = place_after(conn, after)?;
    let mut statement = conn.prepare_cached(SELECT_PENDING)?;
    let rows = statement.query_map(params![after, row_number(limit)], queued)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn pending_request(conn: &Connection, id: RequestId) -> Result<Option<Queued>, Failure> {
    let found = conn.prepare_cached(SELECT_ONE_PENDING)?.query_row([id_bytes(id)], queued);
    Ok(found.optional()?)
}

/// A row that begins with the columns of a request.
pub(super) fn queued(row: &Row<'_>) -> rusqlite::Result<Queued> {
    let request = QueuedRequest {
        id: request_id(row, 0)?,
        app: row.get(1)?,
        path: row.get(2)?,
        method: row.get(3)?,
        priority: priority(row, 4)?,
        submitted_at: timestamp(row, 5)?,
        start_deadline: optional_timestamp(row, 6)?,
        no_retry: row.get(7)?,
        retry_config: row.get(8)?,
        hint: row.get(9)?,
        webhook_url: row.get(10)?,
        idempotency_key: row.get(11)?,
        keep_payload: row.get(12)?,
        caller: row.get(13)?,
        headers: json_list(row, 14)?,
        body: Vec::new(),
    };
    Ok((request, KeptBody::of(row, 15)?))
}

/// Counts by walking: a store that one node uses is asked for nothing that its engine knows.
pub(super) fn ahead(conn: &Connection, id: RequestId) -> Result<usize, Failure> {
    let found: Option<(i64, String)> = conn
        .prepare_cached("SELECT place, app FROM requests WHERE id = ?1")?
        .query_row([id_bytes(id)], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((place, app)) = found else { return Ok(0) };
    let mut statement = conn.prepare_cached(SELECT_AHEAD)?;
    Ok(statement.query_row(params![place, app], |row| count(row, 0))?)
}

pub(super) fn request(conn: &Connection, id: RequestId) -> Result<Option<RequestRecord>, Failure> {
    let mut statement = conn.prepare_cached(SELECT_RECORD)?;
    Ok(statement.query_row([id_bytes(id)], |row| record(id, row)).optional()?)
}

pub(super) fn completed(
    conn: &Connection,
    app: Option<&str>,
    limit: usize,
) -> Result<Vec<RequestRecord>, Failure> {
    let mut statement = conn.prepare_cached(SELECT_COMPLETED)?;
    let rows = statement
        .query_map(params![app, row_number(limit)], |row| record(request_id(row, 11)?, row))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A row that begins with the columns of [`SELECT_RECORD`].
fn record(id: RequestId, row: &Row<'_>) -> rusqlite::Result<RequestRecord> {
    let completed = if row.get(4)? { Some(summary(row)?) } else { None };
    Ok(RequestRecord {
        id,
        app: row.get(0)?,
        path: row.get(1)?,
        submitted_at: timestamp(row, 2)?,
        owner: row.get(3)?,
        // Nobody who does not know asks a store that one node uses.
        started: false,
        completed,
    })
}

/// Reads what [`SELECT_RECORD`] selects of a completion.
fn summary(row: &Row<'_>) -> rusqlite::Result<CompletedSummary> {
    let (message, kind): (Option<String>, Option<String>) = (row.get(7)?, row.get(8)?);
    Ok(CompletedSummary {
        at: timestamp(row, 5)?,
        status: row.get(6)?,
        error: message.zip(kind),
        inference_seconds: row.get(9)?,
        attempts: row.get(10)?,
    })
}

pub(super) fn place_of(conn: &Connection, id: RequestId) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT place FROM requests WHERE id = ?1")?
        .query_row([id_bytes(id)], |row| row.get(0))
        .optional()
}

/// Where a page begins. A mark that is gone means the beginning.
pub(super) fn place_after(conn: &Connection, after: Option<RequestId>) -> Result<i64, Failure> {
    match after {
        Some(id) => Ok(place_of(conn, id)?.unwrap_or(0)),
        None => Ok(0),
    }
}
