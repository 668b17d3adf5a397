//! Requests with all that is kept of them, in SQL: out of this store and into this store.

use tokio_postgres::Row;

use super::columns::{
    Db, Params, count, json_list, json_text, micros, number, row, rows, run, status, text,
    timestamp, value,
};
use super::failure::Failure;
use super::queue::{SELECT_EARLIER, add_request};
use super::waiting::queued;
use super::writer::Group;
use super::{logs, webhooks};
use crate::records::{Completion, Place, RequestLogLine, StoredResponse, WholeRequest};
use crate::store::{check_body, check_request};

/// The columns of `waiting::SELECT_PENDING`, and after them the place and the completion.
const SELECT_WHOLE: &str = "SELECT id, app, path, priority, submitted_at, start_deadline, \
     no_retry, retry_config, hint, caller, method, webhook_url, idempotency_key, keep_payload, \
     requests.headers, requests.body, completions.place IS NOT NULL, completions.at, status, \
     completions.headers, completions.body, error_message, error_type, inference_seconds, attempts, \
     requests.place FROM requests LEFT JOIN completions USING (place) \
     WHERE requests.place > $1 ORDER BY requests.place LIMIT $2";
/// Owned by nobody.
const ADD_PENDING: &str = "INSERT INTO pending (place, app, owner) VALUES ($1, $2, 0)";
const ADD_COMPLETION: &str = "INSERT INTO completions (place, at, owner, started, status, \
     error_message, error_type, inference_seconds, attempts, bytes, headers, body) \
     VALUES ($1, $2, 0, false, $3, $4, $5, $6, $7, $8, $9, $10)";
const ADD_TOTAL: &str = "INSERT INTO request_log_totals (place, lines, at) \
     VALUES ($1, greatest($2, (SELECT lines FROM request_log_totals WHERE place = $1)) + $3, $4) \
     ON CONFLICT (place) DO UPDATE SET lines = excluded.lines, at = excluded.at";

pub(super) async fn export(
    db: &Db,
    (after, limit): &(Place, usize),
) -> Result<(Vec<WholeRequest>, Place), Failure> {
    let found = rows(db, SELECT_WHOLE, &[&after.0, &number(*limit)]).await?;
    let (mut all, mut last) = (Vec::new(), *after);
    for row in &found {
        last = Place(value(row, 25)?);
        let request = queued(row)?;
        all.push(WholeRequest {
            completion: if value(row, 16)? { Some(completion(row)?) } else { None },
            logs: logs::lines(db, &request.id).await?,
            delivery: webhooks::record(db, &request.id).await?,
            request,
        });
    }
    Ok((all, last))
}

fn completion(row: &Row) -> Result<Completion, Failure> {
    let (headers, body) = (json_list(row, 19)?, value(row, 20)?);
    Ok(Completion {
        at: timestamp(row, 17)?,
        response: StoredResponse { status: status(row, 18)?, headers, body },
        error: value::<Option<String>>(row, 21)?.zip(value(row, 22)?),
        inference_seconds: value(row, 23)?,
        attempts: count(row, 24)?,
    })
}

/// Says whether the request was new.
pub(super) async fn import(
    group: &Group<'_>,
    (whole, lines_max): &(WholeRequest, usize),
) -> Result<bool, Failure> {
    let mut request = whole.request.clone();
    check_request(&request)?;
    if let Some(completion) = &whole.completion {
        check_body("response body", &completion.response.body)?;
    }
    if let Some(key) = &request.idempotency_key {
        let params: Params<'_> = &[&request.caller, key, &None::<Vec<u8>>, &request.app];
        if row(group.db, SELECT_EARLIER, params).await?.is_some() {
            // Two requests cannot have one key, and a request is worth more than its key.
            request.idempotency_key = None;
        }
    }
    let Some(place) = add_request(group, &request).await? else { return Ok(false) };
    match &whole.completion {
        Some(completion) => add_completion(group, place, completion, request.body.len()).await?,
        None => {
            run(group.db, ADD_PENDING, &[&place, &request.app]).await?;
        }
    }
    let (lines, dropped) = RequestLogLine::split_notice(&whole.logs);
    logs::append(group, &(request.id, lines.to_vec(), *lines_max)).await?;
    if let Some((dropped, at)) = dropped {
        let kept = number(lines.len().min(*lines_max));
        run(group.db, ADD_TOTAL, &[&place, &kept, &number(dropped), &micros(at)]).await?;
    }
    if let Some(delivery) = &whole.delivery {
        webhooks::take_in(group, place, delivery).await?;
    }
    Ok(true)
}

async fn add_completion(
    group: &Group<'_>,
    place: i64,
    completion: &Completion,
    payload_bytes: usize,
) -> Result<(), Failure> {
    let (body, headers) = (&completion.response.body, json_text(&completion.response.headers)?);
    let (message, kind) =
        completion.error.as_ref().map(|(message, kind)| (text(message), text(kind))).unzip();
    let params: Params<'_> = &[
        &place,
        &micros(completion.at),
        &i32::from(completion.response.status),
        &message,
        &kind,
        &completion.inference_seconds,
        &number(completion.attempts),
        &number(payload_bytes + body.len()),
        &headers,
        body,
    ];
    run(group.db, ADD_COMPLETION, params).await?;
    Ok(())
}
