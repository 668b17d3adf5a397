//! Webhooks and their delivery log in SQL.

use std::time::Duration;

use glowplug_core::{RequestId, Timestamp};
use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension as _, Row, params};

use super::columns::{micros, optional_timestamp, request_id, row_number, timestamp};
use super::failure::Failure;
use super::queue::place_of;
use crate::limits::DELIVERY_ATTEMPTS_MAX;
use crate::records::{Delivery, DeliveryAttempt, DeliveryRecord, DeliveryState};
use crate::store::DELIVERY_LEASE;

/// The joins are crossed, so that they start from the few that are due.
pub(super) const SELECT_DUE: &str = "SELECT place, id, webhook_url, caller, completions.at, calls \
     FROM deliveries CROSS JOIN completions USING (place) CROSS JOIN requests USING (place) \
     WHERE due_at <= ?1 ORDER BY due_at, place LIMIT ?2";
pub(super) const SELECT_NEXT: &str = "SELECT min(due_at) FROM deliveries WHERE due_at IS NOT NULL";

const DUE: i64 = 0;
const DELIVERED: i64 = 1;
const FAILED: i64 = 2;
/// As due, and a node is calling it; `due_at` is when that node has had its time.
const GIVEN: i64 = 3;

/// The values of `state` and `due_at`.
fn state_values(state: DeliveryState) -> (i64, Option<i64>) {
    match state {
        DeliveryState::Due(at) => (DUE, Some(micros(at))),
        DeliveryState::Delivered => (DELIVERED, None),
        DeliveryState::Failed => (FAILED, None),
    }
}

pub(super) fn insert(
    conn: &Connection,
    place: i64,
    state: DeliveryState,
    calls: usize,
) -> Result<(), Failure> {
    let (state, due_at) = state_values(state);
    conn.prepare_cached(
        "INSERT INTO deliveries (place, state, due_at, calls) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![place, state, due_at, row_number(calls)])?;
    Ok(())
}

/// Gives out what is due, and gives it out again only after the lease.
pub(super) fn due(
    conn: &Connection,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<Delivery>, Failure> {
    let found: Vec<(i64, Delivery)> = conn
        .prepare_cached(SELECT_DUE)?
        .query_map(params![micros(now), row_number(limit)], |row| {
            let delivery = Delivery {
                request: request_id(row, 1)?,
                url: row.get(2)?,
                caller: row.get(3)?,
                completed_at: timestamp(row, 4)?,
                attempts: row.get(5)?,
            };
            Ok((row.get(0)?, delivery))
        })?
        .collect::<Result<_, _>>()?;
    let again_at = micros(now + DELIVERY_LEASE);
    let mut lease =
        conn.prepare_cached("UPDATE deliveries SET state = ?1, due_at = ?2 WHERE place = ?3")?;
    for (place, _) in &found {
        lease.execute([GIVEN, again_at, *place])?;
    }
    Ok(found.into_iter().map(|(_, delivery)| delivery).collect())
}

/// A node starts, and no other uses this file: whoever was given a webhook before is gone.
pub(super) fn take_back(conn: &Connection) -> Result<(), Failure> {
    conn.prepare_cached(
        "UPDATE deliveries SET state = ?1, due_at = 0 WHERE due_at IS NOT NULL AND state = ?2",
    )?
    .execute([DUE, GIVEN])?;
    Ok(())
}

pub(super) fn next(conn: &Connection) -> Result<Option<Timestamp>, Failure> {
    let mut statement = conn.prepare_cached(SELECT_NEXT)?;
    Ok(statement.query_row([], |row| optional_timestamp(row, 0))?)
}

pub(super) fn called(
    conn: &Connection,
    id: RequestId,
    attempt: &DeliveryAttempt,
    state: DeliveryState,
) -> Result<(), Failure> {
    let Some(place) = place_of(conn, id)? else { return Ok(()) };
    let (state, due_at) = state_values(state);
    // A call that was overtaken by another may report after it.
    let number: Option<i64> = conn
        .prepare_cached(
            "UPDATE deliveries SET calls = calls + 1, \
             state = CASE state WHEN 1 THEN 1 ELSE ?2 END, \
             due_at = CASE state WHEN 1 THEN NULL ELSE ?3 END \
             WHERE place = ?1 RETURNING calls",
        )?
        .query_row(params![place, state, due_at], |row| row.get(0))
        .optional()?;
    match number {
        Some(number) => log(conn, place, number, attempt),
        None => Ok(()),
    }
}

fn log(
    conn: &Connection,
    place: i64,
    number: i64,
    attempt: &DeliveryAttempt,
) -> Result<(), Failure> {
    conn.prepare_cached(
        "INSERT INTO delivery_calls (place, number, at, took_micros, status, problem) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        place,
        number,
        micros(attempt.at),
        i64::try_from(attempt.took.as_micros()).unwrap_or(i64::MAX),
        attempt.status,
        attempt.problem
    ])?;
    conn.prepare_cached("DELETE FROM delivery_calls WHERE place = ?1 AND number <= ?2")?
        .execute([place, number - row_number(DELIVERY_ATTEMPTS_MAX)])?;
    Ok(())
}

pub(super) fn of(conn: &Connection, id: RequestId) -> Result<Option<DeliveryRecord>, Failure> {
    match place_of(conn, id)? {
        Some(place) => at(conn, place),
        None => Ok(None),
    }
}

pub(super) fn at(conn: &Connection, place: i64) -> Result<Option<DeliveryRecord>, Failure> {
    let found: Option<(Option<String>, DeliveryState)> = conn
        .prepare_cached(
            "SELECT webhook_url, state, due_at FROM deliveries JOIN requests USING (place) \
             WHERE place = ?1",
        )?
        .query_row([place], |row| Ok((row.get(0)?, delivery_state(row)?)))
        .optional()?;
    let Some((url, state)) = found else { return Ok(None) };
    let mut statement = conn.prepare_cached(
        "SELECT at, took_micros, status, problem FROM delivery_calls WHERE place = ?1 \
         ORDER BY number",
    )?;
    let attempts = statement.query_map([place], attempt)?.collect::<Result<_, _>>()?;
    Ok(Some(DeliveryRecord { url: url.unwrap_or_default(), state, attempts }))
}

/// From the columns `state` and `due_at` after the first.
fn delivery_state(row: &Row<'_>) -> rusqlite::Result<DeliveryState> {
    match (row.get(1)?, optional_timestamp(row, 2)?) {
        (DUE | GIVEN, Some(at)) => Ok(DeliveryState::Due(at)),
        (DELIVERED, _) => Ok(DeliveryState::Delivered),
        (FAILED, _) => Ok(DeliveryState::Failed),
        (other, _) => Err(Error::IntegralValueOutOfRange(1, other)),
    }
}

fn attempt(row: &Row<'_>) -> rusqlite::Result<DeliveryAttempt> {
    let micros: i64 = row.get(1)?;
    let micros = u64::try_from(micros)
        .map_err(|error| Error::FromSqlConversionFailure(1, Type::Integer, error.into()))?;
    Ok(DeliveryAttempt {
        at: timestamp(row, 0)?,
        took: Duration::from_micros(micros),
        status: row.get(2)?,
        problem: row.get(3)?,
    })
}

/// Takes in what [`at`] gave out elsewhere.
pub(super) fn take_in(
    conn: &Connection,
    place: i64,
    record: &DeliveryRecord,
) -> Result<(), Failure> {
    let skipped = record.attempts.len().saturating_sub(DELIVERY_ATTEMPTS_MAX);
    insert(conn, place, record.state, record.attempts.len())?;
    for (number, attempt) in (1_i64..).zip(&record.attempts).skip(skipped) {
        log(conn, place, number, attempt)?;
    }
    Ok(())
}
