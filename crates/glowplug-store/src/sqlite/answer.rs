//! How a request ends, in SQL: its answer, its webhook, what is then kept of it.

use glowplug_core::RequestId;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::columns::{id_bytes, json_list, json_text, micros};
use super::failure::Failure;
use super::stored_body::{KeptBody, NewBody};
use super::webhooks;
use crate::records::{Completed, Completion, DeliveryState, StoredResponse};

/// What [`complete`] needs to know of a request.
struct Asked {
    place: i64,
    has_webhook: bool,
    keep_payload: bool,
    payload_bytes: i64,
    payload_file: Option<String>,
}

/// What [`complete`] did, and the file that nothing names any more.
pub(super) type Ended = (Completed, Option<String>);

/// The body of the answer is in `body`.
pub(super) fn complete(
    conn: &Connection,
    id: RequestId,
    completion: &Completion,
    body: &NewBody,
    owner: u32,
) -> Result<Ended, Failure> {
    let Some(asked) = asked(conn, id)? else { return Ok((Completed::UnknownRequest, None)) };
    let place = asked.place;
    let was_ours = conn
        .prepare_cached("DELETE FROM pending WHERE place = ?1 AND owner = ?2")?
        .execute([place, i64::from(owner)])?
        == 1;
    if !was_ours {
        let is_pending =
            conn.prepare_cached("SELECT 1 FROM pending WHERE place = ?1")?.exists([place])?;
        let why = if is_pending { Completed::Fenced } else { Completed::AlreadyComplete };
        return Ok((why, None));
    }
    let dropped = if asked.keep_payload { None } else { drop_payload(conn, &asked)? };
    let kept_bytes = body.bytes() + if asked.keep_payload { asked.payload_bytes } else { 0 };
    insert(conn, place, completion, body, owner, kept_bytes)?;
    if asked.has_webhook {
        webhooks::insert(conn, place, DeliveryState::Due(completion.at), 0)?;
    }
    Ok((Completed::Recorded, dropped))
}

fn asked(conn: &Connection, id: RequestId) -> Result<Option<Asked>, Failure> {
    let found = conn
        .prepare_cached(
            "SELECT place, webhook_url IS NOT NULL, keep_payload, body_bytes, body_file \
             FROM requests WHERE id = ?1",
        )?
        .query_row([id_bytes(id)], |row| {
            Ok(Asked {
                place: row.get(0)?,
                has_webhook: row.get(1)?,
                keep_payload: row.get(2)?,
                payload_bytes: row.get(3)?,
                payload_file: row.get(4)?,
            })
        })
        .optional()?;
    Ok(found)
}

/// The checksum stays: the request may be submitted again under its idempotency key.
fn drop_payload(conn: &Connection, asked: &Asked) -> Result<Option<String>, Failure> {
    conn.prepare_cached(
        "UPDATE requests SET body = x'', body_bytes = 0, body_file = NULL WHERE place = ?1",
    )?
    .execute([asked.place])?;
    Ok(asked.payload_file.clone())
}

/// Adds the answer and counts it in the totals.
pub(super) fn insert(
    conn: &Connection,
    place: i64,
    completion: &Completion,
    body: &NewBody,
    owner: u32,
    kept_bytes: i64,
) -> Result<(), Failure> {
    let (message, kind) = completion.error.as_ref().map(|(m, t)| (m, t)).unzip();
    conn.prepare_cached(
        "INSERT INTO completions (place, at, status, error_message, error_type, \
         inference_seconds, attempts, owner, kept_bytes, headers, body_bytes, body_hash, \
         body_file, body) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?
    .execute(params![
        place,
        micros(completion.at),
        completion.response.status,
        message,
        kind,
        completion.inference_seconds,
        completion.attempts,
        owner,
        kept_bytes,
        json_text(&completion.response.headers)?,
        body.bytes(),
        body.hash,
        body.file,
        body.inline,
    ])?;
    conn.prepare_cached(
        "UPDATE node SET complete_requests = complete_requests + 1, \
         complete_bytes = complete_bytes + ?1",
    )?
    .execute([kept_bytes])?;
    Ok(())
}

pub(super) fn response(
    conn: &Connection,
    id: RequestId,
) -> Result<Option<(StoredResponse, KeptBody)>, Failure> {
    let found = conn
        .prepare_cached(
            "SELECT status, completions.headers, completions.body_bytes, completions.body_hash, \
             completions.body_file, completions.body \
             FROM requests JOIN completions USING (place) WHERE id = ?1",
        )?
        .query_row([id_bytes(id)], |row| Ok((stored_response(row, 0)?, KeptBody::of(row, 2)?)))
        .optional()?;
    Ok(found)
}

/// From the columns `status` and `headers`, the first of which is `column`. The body is elsewhere.
pub(super) fn stored_response(row: &Row<'_>, column: usize) -> rusqlite::Result<StoredResponse> {
    Ok(StoredResponse {
        status: row.get(column)?,
        headers: json_list(row, column + 1)?,
        body: Vec::new(),
    })
}
