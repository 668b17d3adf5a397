//! How a request gets into the queue, and whose it is, in SQL.

use glowplug_core::RequestId;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::columns::{
    id_bytes, json_text, micros, optional_timestamp, priority, priority_number, request_id,
    row_number, timestamp,
};
use super::disk::Disk;
use super::failure::Failure;
use super::stored_body::NewBody;
use crate::records::{Accepted, QueuedHead, QueuedRequest};
use crate::store::StoreError;

pub(super) const SELECT_BY_KEY: &str = "SELECT id, method, path, body_hash FROM requests \
     WHERE caller = ?1 AND app = ?2 AND idempotency_key = ?3";
/// The join is crossed, so that it starts from the few that are pending.
pub(super) const SELECT_NOT_OWNED: &str = "SELECT pending.place, id, app, path, priority, \
     submitted_at, start_deadline, no_retry, retry_config, hint, caller, attempts \
     FROM pending CROSS JOIN requests USING (place) \
     WHERE pending.place > ?1 AND owner <> ?2 ORDER BY pending.place LIMIT ?3";

/// The body of `request` is in `body`.
pub(super) fn submit(
    conn: &Connection,
    request: &QueuedRequest,
    body: &NewBody,
    owner: u32,
    disk: &Disk,
) -> Result<Accepted, Failure> {
    if let Some(key) = &request.idempotency_key
        && let Some(earlier) = submitted_before(conn, request, key, body)?
    {
        return Ok(Accepted::Before(earlier));
    }
    disk.check_reserve("accept the request")?;
    if insert(conn, request, body)?.is_none() {
        return Err(StoreError::Duplicate(request.id).into());
    }
    put_in_line(conn, conn.last_insert_rowid(), owner)?;
    Ok(Accepted::New)
}

/// The request that the caller submitted under this key before, if it is the same one.
fn submitted_before(
    conn: &Connection,
    request: &QueuedRequest,
    key: &str,
    body: &NewBody,
) -> Result<Option<RequestId>, Failure> {
    let earlier = conn
        .prepare_cached(SELECT_BY_KEY)?
        .query_row([&request.caller, &request.app, key], |row| {
            let method: String = row.get(1)?;
            let path: String = row.get(2)?;
            let hash: Option<[u8; 32]> = row.get(3)?;
            let is_same = (&method, &path, hash) == (&request.method, &request.path, body.hash);
            Ok((request_id(row, 0)?, is_same))
        })
        .optional()?;
    match earlier {
        Some((earlier, false)) => Err(StoreError::KeyReused { earlier }.into()),
        Some((earlier, true)) => Ok(Some(earlier)),
        None => Ok(None),
    }
}

/// Returns the place, or nothing if there is a request with that id.
pub(super) fn insert(
    conn: &Connection,
    request: &QueuedRequest,
    body: &NewBody,
) -> Result<Option<i64>, Failure> {
    let added = conn
        .prepare_cached(
            "INSERT INTO requests (id, app, path, method, priority, submitted_at, start_deadline, \
             no_retry, retry_config, hint, webhook_url, idempotency_key, keep_payload, caller, \
             headers, body_bytes, body_hash, body_file, body) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, \
             ?18, ?19) \
             ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![
            id_bytes(request.id),
            request.app,
            request.path,
            request.method,
            priority_number(request.priority),
            micros(request.submitted_at),
            request.start_deadline.map(micros),
            request.no_retry,
            request.retry_config,
            request.hint,
            request.webhook_url,
            request.idempotency_key,
            request.keep_payload,
            request.caller,
            json_text(&request.headers)?,
            body.bytes(),
            body.hash,
            body.file,
            body.inline,
        ])?;
    Ok((added == 1).then(|| conn.last_insert_rowid()))
}

pub(super) fn put_in_line(conn: &Connection, place: i64, owner: u32) -> Result<(), Failure> {
    conn.prepare_cached("INSERT INTO pending (place, owner) VALUES (?1, ?2)")?
        .execute([place, i64::from(owner)])?;
    Ok(())
}

/// Takes over requests behind `after` that are not of `owner`. Says up to which place there are none
/// left.
pub(super) fn adopt(
    conn: &Connection,
    after: i64,
    owner: u32,
    limit: usize,
) -> Result<(Vec<QueuedHead>, i64), Failure> {
    let found: Vec<(i64, QueuedHead)> = conn
        .prepare_cached(SELECT_NOT_OWNED)?
        .query_map(params![after, owner, row_number(limit)], |row| Ok((row.get(0)?, head(row)?)))?
        .collect::<Result<_, _>>()?;
    let mut update = conn.prepare_cached("UPDATE pending SET owner = ?1 WHERE place = ?2")?;
    for (place, _) in &found {
        update.execute([i64::from(owner), *place])?;
    }
    let last = found.last().map_or(after, |(place, _)| *place);
    Ok((found.into_iter().map(|(_, head)| head).collect(), last))
}

pub(super) fn started(
    conn: &Connection,
    id: RequestId,
    attempt: u32,
    owner: u32,
) -> Result<(), Failure> {
    conn.prepare_cached(
        "UPDATE pending SET attempts = max(attempts, ?1) \
         WHERE place = (SELECT place FROM requests WHERE id = ?2) AND owner = ?3",
    )?
    .execute(params![attempt, id_bytes(id), owner])?;
    Ok(())
}

/// A row of [`SELECT_NOT_OWNED`].
fn head(row: &Row<'_>) -> rusqlite::Result<QueuedHead> {
    Ok(QueuedHead {
        id: request_id(row, 1)?,
        app: row.get(2)?,
        path: row.get(3)?,
        priority: priority(row, 4)?,
        submitted_at: timestamp(row, 5)?,
        start_deadline: optional_timestamp(row, 6)?,
        no_retry: row.get(7)?,
        retry_config: row.get(8)?,
        hint: row.get(9)?,
        caller: row.get(10)?,
        attempts: row.get(11)?,
    })
}

pub(super) fn has_key(
    conn: &Connection,
    request: &QueuedRequest,
    key: &str,
) -> Result<bool, Failure> {
    let mut statement = conn.prepare_cached(SELECT_BY_KEY)?;
    Ok(statement.exists([&request.caller, &request.app, key])?)
}
