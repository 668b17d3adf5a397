//! Requests with all that is kept of them, in SQL: out of this store and into this store.

use glowplug_core::RequestId;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::accept;
use super::answer;
use super::columns::{id_bytes, row_number, timestamp};
use super::disk::Disk;
use super::failure::Failure;
use super::queue::{Queued, REQUEST_COLUMNS, SELECT_WHOLE, queued};
use super::request_logs;
use super::stored_body::{KeptBody, NewBody};
use super::webhooks;
use crate::records::{Completion, Place, WholeRequest};

/// A request of which no node runs attempts.
const NOBODY: u32 = 0;

/// A whole request without its bodies, and where those are.
pub(super) struct Exported {
    pub(super) whole: WholeRequest,
    pub(super) payload: KeptBody,
    pub(super) answer: Option<KeptBody>,
}

pub(super) fn export(
    conn: &Connection,
    after: Place,
    limit: usize,
) -> Result<(Vec<Exported>, Place), Failure> {
    let mut statement = conn.prepare_cached(SELECT_WHOLE)?;
    let mut rows = statement.query(params![after.0, row_number(limit)])?;
    let (mut all, mut last) = (Vec::new(), after);
    while let Some(row) = rows.next()? {
        last = Place(row.get(REQUEST_COLUMNS)?);
        all.push(exported(conn, last.0, queued(row)?)?);
    }
    Ok((all, last))
}

fn exported(
    conn: &Connection,
    place: i64,
    (request, payload): Queued,
) -> Result<Exported, Failure> {
    let (completion, answer) = completion(conn, place)?.unzip();
    let (logs, delivery) = (request_logs::at(conn, place)?, webhooks::at(conn, place)?);
    let whole = WholeRequest { request, completion, logs, delivery };
    Ok(Exported { whole, payload, answer })
}

fn completion(conn: &Connection, place: i64) -> Result<Option<(Completion, KeptBody)>, Failure> {
    let found = conn
        .prepare_cached(
            "SELECT at, error_message, error_type, inference_seconds, attempts, status, headers, \
             body_bytes, body_hash, body_file, body FROM completions WHERE place = ?1",
        )?
        .query_row([place], |row| {
            let (message, kind): (Option<String>, Option<String>) = (row.get(1)?, row.get(2)?);
            let completion = Completion {
                at: timestamp(row, 0)?,
                response: answer::stored_response(row, 5)?,
                error: message.zip(kind),
                inference_seconds: row.get(3)?,
                attempts: row.get(4)?,
            };
            Ok((completion, KeptBody::of(row, 7)?))
        })
        .optional()?;
    Ok(found)
}

/// Whether a row names the file of a body.
pub(super) fn names_file(conn: &Connection, id: RequestId, file: &str) -> Result<bool, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT 1 FROM requests LEFT JOIN completions USING (place) \
         WHERE id = ?1 AND (requests.body_file = ?2 OR completions.body_file = ?2)",
    )?;
    Ok(statement.exists(params![id_bytes(id), file])?)
}

/// The bodies of `whole` are in `payload` and `answer`. Says whether the request was new.
pub(super) fn import(
    conn: &Connection,
    whole: &WholeRequest,
    payload: &NewBody,
    answer_body: &NewBody,
    log_lines_max: usize,
    disk: &Disk,
) -> Result<bool, Failure> {
    let mut request = whole.request.clone();
    if let Some(key) = &request.idempotency_key
        && accept::has_key(conn, &request, key)?
    {
        // Two requests cannot have one key, and a request is worth more than its key.
        request.idempotency_key = None;
    }
    disk.check_reserve("import a request")?;
    let Some(place) = accept::insert(conn, &request, payload)? else { return Ok(false) };
    match &whole.completion {
        Some(completion) => {
            let kept_bytes = payload.bytes() + answer_body.bytes();
            answer::insert(conn, place, completion, answer_body, NOBODY, kept_bytes)?;
        }
        None => accept::put_in_line(conn, place, NOBODY)?,
    }
    request_logs::take_in(conn, place, &whole.logs, log_lines_max)?;
    if let Some(delivery) = &whole.delivery {
        webhooks::take_in(conn, place, delivery)?;
    }
    Ok(true)
}
