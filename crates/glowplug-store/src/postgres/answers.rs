//! What is known of a request, and its answer, in SQL.

use std::time::Duration;

use glowplug_core::RequestId;
use tokio_postgres::Row;

use super::columns::{
    Db, boot, count, json_list, number, request_id, row, rows, status, timestamp, uuid, value,
};
use super::failure::Failure;
use crate::records::{CompletedSummary, RequestRecord, StoredResponse};

const SELECT_RECORD: &str = "SELECT app, path, submitted_at, \
     coalesce(completions.owner, pending.owner, 0), \
     coalesce(completions.started, pending.started, false), completions.place IS NOT NULL, \
     completions.at, status, error_message, error_type, inference_seconds, \
     completions.attempts FROM requests LEFT JOIN pending USING (place, app) \
     LEFT JOIN completions USING (place) WHERE id = $1";
/// The columns of [`SELECT_RECORD`] and the id.
const SELECT_COMPLETED: &str = "SELECT app, path, submitted_at, completions.owner, \
     completions.started, true, completions.at, status, error_message, error_type, \
     inference_seconds, attempts, id FROM completions JOIN requests USING (place) \
     WHERE $1::text IS NULL OR app = $1 \
     ORDER BY completions.at DESC, completions.place DESC LIMIT $2";
const SELECT_RESPONSE: &str = "SELECT status, completions.headers, completions.body \
     FROM requests JOIN completions USING (place) WHERE id = $1";
const SELECT_RECENT: &str = "SELECT id FROM completions JOIN requests USING (place) \
     WHERE recorded_at > clock_timestamp() - make_interval(secs => $1) \
     ORDER BY recorded_at DESC LIMIT $2";

pub(super) async fn request(db: &Db, id: &RequestId) -> Result<Option<RequestRecord>, Failure> {
    let found = row(db, SELECT_RECORD, &[&uuid(*id)]).await?;
    found.map(|row| record(*id, &row)).transpose()
}

pub(super) async fn completed(
    db: &Db,
    (app, limit): &(Option<String>, usize),
) -> Result<Vec<RequestRecord>, Failure> {
    let found = rows(db, SELECT_COMPLETED, &[app, &number(*limit)]).await?;
    found.iter().map(|row| record(request_id(row, 12)?, row)).collect()
}

fn record(id: RequestId, row: &Row) -> Result<RequestRecord, Failure> {
    Ok(RequestRecord {
        id,
        app: value(row, 0)?,
        path: value(row, 1)?,
        submitted_at: timestamp(row, 2)?,
        owner: boot(row, 3)?,
        started: value(row, 4)?,
        completed: if value(row, 5)? { Some(summary(row)?) } else { None },
    })
}

fn summary(row: &Row) -> Result<CompletedSummary, Failure> {
    Ok(CompletedSummary {
        at: timestamp(row, 6)?,
        status: status(row, 7)?,
        error: value::<Option<String>>(row, 8)?.zip(value(row, 9)?),
        inference_seconds: value(row, 10)?,
        attempts: count(row, 11)?,
    })
}

pub(super) async fn response(db: &Db, id: &RequestId) -> Result<Option<StoredResponse>, Failure> {
    let Some(row) = row(db, SELECT_RESPONSE, &[&uuid(*id)]).await? else { return Ok(None) };
    let (status, headers) = (status(&row, 0)?, json_list(&row, 1)?);
    Ok(Some(StoredResponse { status, headers, body: value(&row, 2)? }))
}

/// What was completed within this time, the latest first.
pub(super) async fn recently_completed(
    db: &Db,
    within: Duration,
    limit: usize,
) -> Result<Vec<RequestId>, Failure> {
    let found = rows(db, SELECT_RECENT, &[&within.as_secs_f64(), &number(limit)]).await?;
    found.iter().map(|row| request_id(row, 0)).collect()
}
