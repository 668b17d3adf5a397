//! Webhooks of complete requests in SQL.
//!
//! A webhook that is given out is due again after [`DELIVERY_LEASE`], whatever became of the node that
//! took it, or sooner if that node is known to be gone. All times here are those of the callers.

use std::time::Duration;

use glowplug_core::{RequestId, Timestamp};
use tokio_postgres::Row;

use super::columns::{
    Db, Params, boot_number, count, from_micros, micros, number, request_id, row, rows, run, text,
    timestamp, uuid, value,
};
use super::failure::{Failure, Fault, Kind};
use super::writer::Group;
use crate::limits::DELIVERY_ATTEMPTS_MAX;
use crate::records::{Delivery, DeliveryAttempt, DeliveryRecord, DeliveryState};
use crate::store::DELIVERY_LEASE;

/// Nodes that ask at once are given different ones.
const GIVE_OUT: &str = "WITH due AS (SELECT place, due_at FROM deliveries \
     WHERE state = 0 AND due_at <= $1 ORDER BY due_at, place LIMIT $2 FOR UPDATE SKIP LOCKED), \
     given AS (UPDATE deliveries SET due_at = $3, given_to = $4 FROM due WHERE deliveries.place = due.place \
     RETURNING deliveries.place, due.due_at, attempts) \
     SELECT id, webhook_url, caller, completions.at, given.attempts \
     FROM given JOIN requests USING (place) JOIN completions USING (place) ORDER BY due_at, place";
macro_rules! with_a_dead_node {
    () => {
        "WHERE given_to IS NOT NULL AND state = 0 AND given_to <> $1 AND NOT EXISTS ( \
         SELECT 1 FROM nodes WHERE boot = given_to AND lease_until > clock_timestamp())"
    };
}
/// Whether the dead node called is not known, so it is called again, and at once.
const TAKE_BACK: &str =
    concat!("UPDATE deliveries SET due_at = 0, given_to = NULL ", with_a_dead_node!());
pub(super) const SELECT_ORPHANS: &str =
    concat!("SELECT given_to FROM deliveries ", with_a_dead_node!());
const SELECT_NEXT: &str = "SELECT min(due_at) FROM deliveries WHERE state = 0";
/// A call that was overtaken by another may report after it: what was delivered stays so.
const CALLED: &str = "WITH counted AS (UPDATE deliveries \
     SET attempts = attempts + 1, given_to = NULL, \
     state = CASE state WHEN 1 THEN 1::smallint ELSE $2 END, due_at = $3 FROM requests \
     WHERE requests.id = $1 AND deliveries.place = requests.place \
     RETURNING deliveries.place, attempts), \
     forgotten AS (DELETE FROM delivery_attempts USING counted \
     WHERE delivery_attempts.place = counted.place AND number <= attempts - $8) \
     INSERT INTO delivery_attempts (place, number, at, took_micros, status, problem) \
     SELECT place, attempts, $4, $5, $6, $7 FROM counted";
const ADD: &str = "INSERT INTO deliveries (place, state, due_at, attempts) VALUES ($1, $2, $3, $4)";
const ADD_ATTEMPTS: &str = "INSERT INTO delivery_attempts \
     (place, number, at, took_micros, status, problem) \
     SELECT $1, nth + $2, at, took_micros, status, problem \
     FROM unnest($3::bigint[], $4::bigint[], $5::integer[], $6::text[]) WITH ORDINALITY \
     AS given (at, took_micros, status, problem, nth)";
const SELECT_ONE: &str = "SELECT webhook_url, state, due_at, deliveries.place \
     FROM requests JOIN deliveries USING (place) WHERE id = $1";
const SELECT_ATTEMPTS: &str = "SELECT at, took_micros, status, problem FROM delivery_attempts \
     WHERE place = $1 ORDER BY number";

pub(super) async fn give_out(
    group: &Group<'_>,
    (now, limit, me): &(Timestamp, usize, u32),
) -> Result<Vec<Delivery>, Failure> {
    let again_at = now.saturating_add(DELIVERY_LEASE);
    let params: Params<'_> =
        &[&micros(*now), &number(*limit), &micros(again_at), &boot_number(*me)];
    let given = rows(group.db, GIVE_OUT, params).await?;
    given.iter().map(delivery).collect()
}

fn delivery(row: &Row) -> Result<Delivery, Failure> {
    Ok(Delivery {
        request: request_id(row, 0)?,
        url: value(row, 1)?,
        caller: value(row, 2)?,
        completed_at: timestamp(row, 3)?,
        attempts: count(row, 4)?,
    })
}

/// Makes due again what nodes had that are gone.
pub(super) async fn take_back(group: &Group<'_>, me: u32) -> Result<(), Failure> {
    run(group.db, TAKE_BACK, &[&boot_number(me)]).await?;
    Ok(())
}

pub(super) async fn next(db: &Db, (): &()) -> Result<Option<Timestamp>, Failure> {
    match row(db, SELECT_NEXT, &[]).await? {
        Some(row) => Ok(value::<Option<i64>>(&row, 0)?.map(from_micros)),
        None => Ok(None),
    }
}

pub(super) async fn called(
    group: &Group<'_>,
    (id, attempt, state): &(RequestId, DeliveryAttempt, DeliveryState),
) -> Result<(), Failure> {
    let (state, due_at) = state_columns(*state);
    run(
        group.db,
        CALLED,
        &[
            &uuid(*id),
            &state,
            &due_at,
            &micros(attempt.at),
            &number(attempt.took.as_micros()),
            &attempt.status.map(i32::from),
            &attempt.problem.as_deref().map(text),
            &number(DELIVERY_ATTEMPTS_MAX),
        ],
    )
    .await?;
    Ok(())
}

fn state_columns(state: DeliveryState) -> (i16, i64) {
    match state {
        DeliveryState::Due(at) => (0, micros(at)),
        DeliveryState::Delivered => (1, 0),
        DeliveryState::Failed => (2, 0),
    }
}

pub(super) async fn record(db: &Db, id: &RequestId) -> Result<Option<DeliveryRecord>, Failure> {
    let Some(found) = row(db, SELECT_ONE, &[&uuid(*id)]).await? else { return Ok(None) };
    let state = match value::<i16>(&found, 1)? {
        0 => DeliveryState::Due(timestamp(&found, 2)?),
        1 => DeliveryState::Delivered,
        2 => DeliveryState::Failed,
        other => {
            let problem = format!("{other} is no state of a webhook");
            return Err(Fault::new(Kind::Damaged, problem).into());
        }
    };
    let attempts = rows(db, SELECT_ATTEMPTS, &[&value::<i64>(&found, 3)?]).await?;
    let attempts = attempts.iter().map(attempt).collect::<Result<_, _>>()?;
    Ok(Some(DeliveryRecord { url: value(&found, 0)?, state, attempts }))
}

fn attempt(row: &Row) -> Result<DeliveryAttempt, Failure> {
    let status = value::<Option<i32>>(row, 2)?;
    Ok(DeliveryAttempt {
        at: timestamp(row, 0)?,
        took: Duration::from_micros(count(row, 1)?),
        status: status.map(|_| super::columns::status(row, 2)).transpose()?,
        problem: value(row, 3)?,
    })
}

/// Takes in what [`record`] gave out elsewhere.
pub(super) async fn take_in(
    group: &Group<'_>,
    place: i64,
    record: &DeliveryRecord,
) -> Result<(), Failure> {
    let (state, due_at) = state_columns(record.state);
    run(group.db, ADD, &[&place, &state, &due_at, &number(record.attempts.len())]).await?;
    let skipped = record.attempts.len().saturating_sub(DELIVERY_ATTEMPTS_MAX);
    let kept = &record.attempts[skipped..];
    let times: Vec<_> = kept.iter().map(|attempt| micros(attempt.at)).collect();
    let took: Vec<_> = kept.iter().map(|attempt| number(attempt.took.as_micros())).collect();
    let statuses: Vec<_> = kept.iter().map(|attempt| attempt.status.map(i32::from)).collect();
    let problems: Vec<_> =
        kept.iter().map(|attempt| attempt.problem.as_deref().map(text)).collect();
    let params: Params<'_> = &[&place, &number(skipped), &times, &took, &statuses, &problems];
    run(group.db, ADD_ATTEMPTS, params).await?;
    Ok(())
}
