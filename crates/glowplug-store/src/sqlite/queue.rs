//! Requests, answers and their logs in SQL.

use glowplug_core::{RequestId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::columns::{
    count, id_bytes, json_list, json_text, micros, optional_timestamp, priority, priority_number,
    row_number, timestamp,
};
use super::failure::Failure;
use crate::records::{
    Completed, CompletedSummary, Completion, QueuedRequest, RequestLogLine, RequestRecord,
    StoredResponse,
};
use crate::store::StoreError;

/// The join is crossed, so that it starts from the few that are pending.
pub(super) const SELECT_PENDING: &str = "SELECT id, app, path, method, priority, submitted_at, \
     start_deadline, no_retry, webhook_url, caller, headers, body \
     FROM pending CROSS JOIN requests USING (place) \
     WHERE pending.place > ?1 ORDER BY pending.place LIMIT ?2";
const SELECT_ONE_PENDING: &str = "SELECT id, app, path, method, priority, submitted_at, \
     start_deadline, no_retry, webhook_url, caller, headers, body \
     FROM requests JOIN pending USING (place) WHERE id = ?1";
pub(super) const SELECT_ENDED: &str =
    "SELECT place FROM completions WHERE at < ?1 ORDER BY at, place LIMIT ?2";

pub(super) fn submit(conn: &Connection, request: &QueuedRequest) -> Result<(), Failure> {
    let added = conn
        .prepare_cached(
            "INSERT INTO requests (id, app, path, method, priority, submitted_at, start_deadline, \
             no_retry, webhook_url, caller, headers, body) \
             VALUES (:id, :app, :path, :method, :priority, :submitted_at, :start_deadline, \
             :no_retry, :webhook_url, :caller, :headers, :body) \
             ON CONFLICT (id) DO NOTHING",
        )?
        .execute(named_params! {
            ":id": id_bytes(request.id),
            ":app": request.app,
            ":path": request.path,
            ":method": request.method,
            ":priority": priority_number(request.priority),
            ":submitted_at": micros(request.submitted_at),
            ":start_deadline": request.start_deadline.map(micros),
            ":no_retry": request.no_retry,
            ":webhook_url": request.webhook_url,
            ":caller": request.caller,
            ":headers": json_text(&request.headers)?,
            ":body": request.body,
        })?;
    if added == 0 {
        return Err(StoreError::Duplicate(request.id).into());
    }
    conn.prepare_cached("INSERT INTO pending (place) VALUES (?1)")?
        .execute([conn.last_insert_rowid()])?;
    Ok(())
}

pub(super) fn complete(
    conn: &Connection,
    id: RequestId,
    completion: &Completion,
) -> Result<Completed, Failure> {
    let Some(place) = place_of(conn, id)? else { return Ok(Completed::UnknownRequest) };
    let was_pending =
        conn.prepare_cached("DELETE FROM pending WHERE place = ?1")?.execute([place])? == 1;
    if !was_pending {
        return Ok(Completed::AlreadyComplete);
    }
    let (message, kind) = completion.error.as_ref().map(|(m, t)| (m, t)).unzip();
    conn.prepare_cached(
        "INSERT INTO completions (place, at, status, error_message, error_type, \
         inference_seconds, attempts, headers, body) \
         VALUES (:place, :at, :status, :error_message, :error_type, :inference_seconds, \
         :attempts, :headers, :body)",
    )?
    .execute(named_params! {
        ":place": place,
        ":at": micros(completion.at),
        ":status": completion.response.status,
        ":error_message": message,
        ":error_type": kind,
        ":inference_seconds": completion.inference_seconds,
        ":attempts": completion.attempts,
        ":headers": json_text(&completion.response.headers)?,
        ":body": completion.response.body,
    })?;
    Ok(Completed::Recorded)
}

pub(super) fn pending(
    conn: &Connection,
    after: Option<RequestId>,
    limit: usize,
) -> Result<Vec<QueuedRequest>, Failure> {
    let after = match after {
        Some(id) => place_of(conn, id)?.unwrap_or(0),
        None => 0,
    };
    let mut statement = conn.prepare_cached(SELECT_PENDING)?;
    let rows = statement.query_map(params![after, row_number(limit)], queued)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn pending_request(
    conn: &Connection,
    id: RequestId,
) -> Result<Option<QueuedRequest>, Failure> {
    let found = conn.prepare_cached(SELECT_ONE_PENDING)?.query_row([id_bytes(id)], queued);
    Ok(found.optional()?)
}

/// A row of [`SELECT_PENDING`] or [`SELECT_ONE_PENDING`].
fn queued(row: &Row<'_>) -> rusqlite::Result<QueuedRequest> {
    Ok(QueuedRequest {
        id: RequestId(u128::from_be_bytes(row.get(0)?)),
        app: row.get(1)?,
        path: row.get(2)?,
        method: row.get(3)?,
        priority: priority(row, 4)?,
        submitted_at: timestamp(row, 5)?,
        start_deadline: optional_timestamp(row, 6)?,
        no_retry: row.get(7)?,
        retry_config: None,
        hint: None,
        idempotency_key: None,
        keep_payload: true,
        webhook_url: row.get(8)?,
        caller: row.get(9)?,
        headers: json_list(row, 10)?,
        body: row.get(11)?,
    })
}

pub(super) fn request(conn: &Connection, id: RequestId) -> Result<Option<RequestRecord>, Failure> {
    let found = conn
        .prepare_cached(
            "SELECT app, path, submitted_at, completions.place IS NOT NULL, at, status, \
             error_message, error_type, inference_seconds, attempts \
             FROM requests LEFT JOIN completions USING (place) WHERE id = ?1",
        )?
        .query_row([id_bytes(id)], |row| {
            let completed = if row.get(3)? { Some(summary(row)?) } else { None };
            Ok(RequestRecord {
                id,
                app: row.get(0)?,
                path: row.get(1)?,
                submitted_at: timestamp(row, 2)?,
                owner: 0,
                started: false,
                completed,
            })
        })
        .optional()?;
    Ok(found)
}

/// Reads what [`request`] selects of a completion.
fn summary(row: &Row<'_>) -> rusqlite::Result<CompletedSummary> {
    let (message, kind): (Option<String>, Option<String>) = (row.get(6)?, row.get(7)?);
    Ok(CompletedSummary {
        at: timestamp(row, 4)?,
        status: row.get(5)?,
        error: message.zip(kind),
        inference_seconds: row.get(8)?,
        attempts: row.get(9)?,
    })
}

pub(super) fn response(
    conn: &Connection,
    id: RequestId,
) -> Result<Option<StoredResponse>, Failure> {
    let found = conn
        .prepare_cached(
            "SELECT status, completions.headers, completions.body \
             FROM requests JOIN completions USING (place) WHERE id = ?1",
        )?
        .query_row([id_bytes(id)], |row| {
            Ok(StoredResponse {
                status: row.get(0)?,
                headers: json_list(row, 1)?,
                body: row.get(2)?,
            })
        })
        .optional()?;
    Ok(found)
}

pub(super) fn append_logs(
    conn: &Connection,
    id: RequestId,
    lines: &[RequestLogLine],
    lines_max: usize,
) -> Result<(), Failure> {
    let Some(place) = place_of(conn, id)? else { return Ok(()) };
    let kept = conn
        .prepare_cached("SELECT coalesce(max(line) + 1, 0) FROM request_logs WHERE place = ?1")?
        .query_row([place], |row| count(row, 0))?;
    let (keep, drop) = lines.split_at(lines.len().min(lines_max.saturating_sub(kept)));
    let mut insert = conn.prepare_cached(
        "INSERT INTO request_logs (place, line, at, level, source, message) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for (number, line) in (row_number(kept)..).zip(keep) {
        insert.execute(params![
            place,
            number,
            micros(line.at),
            line.level,
            line.source,
            line.message
        ])?;
    }
    if let Some(last) = drop.last() {
        conn.prepare_cached(
            "INSERT INTO request_logs_dropped (place, lines, at) VALUES (?1, ?2, ?3) \
             ON CONFLICT (place) DO UPDATE SET lines = lines + excluded.lines, at = excluded.at",
        )?
        .execute(params![place, row_number(drop.len()), micros(last.at)])?;
    }
    Ok(())
}

pub(super) fn logs(conn: &Connection, id: RequestId) -> Result<Vec<RequestLogLine>, Failure> {
    let Some(place) = place_of(conn, id)? else { return Ok(Vec::new()) };
    let mut statement = conn.prepare_cached(
        "SELECT at, level, source, message FROM request_logs WHERE place = ?1 ORDER BY line",
    )?;
    let rows = statement.query_map([place], |row| {
        Ok(RequestLogLine {
            at: timestamp(row, 0)?,
            level: row.get(1)?,
            source: row.get(2)?,
            message: row.get(3)?,
        })
    })?;
    let mut lines: Vec<_> = rows.collect::<Result<_, _>>()?;
    let notice = conn
        .prepare_cached("SELECT lines, at FROM request_logs_dropped WHERE place = ?1")?
        .query_row([place], |row| {
            Ok(RequestLogLine::dropped_notice(count(row, 0)?, timestamp(row, 1)?))
        })
        .optional()?;
    lines.extend(notice);
    Ok(lines)
}

pub(super) fn purge(conn: &Connection, before: Timestamp, limit: usize) -> Result<usize, Failure> {
    let places: Vec<i64> = conn
        .prepare_cached(SELECT_ENDED)?
        .query_map(params![micros(before), row_number(limit)], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for statement in [
        "DELETE FROM request_logs WHERE place = ?1",
        "DELETE FROM request_logs_dropped WHERE place = ?1",
        "DELETE FROM completions WHERE place = ?1",
        "DELETE FROM requests WHERE place = ?1",
    ] {
        let mut delete = conn.prepare_cached(statement)?;
        for place in &places {
            delete.execute([place])?;
        }
    }
    Ok(places.len())
}

fn place_of(conn: &Connection, id: RequestId) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT place FROM requests WHERE id = ?1")?
        .query_row([id_bytes(id)], |row| row.get(0))
        .optional()
}
