//! How values that PostgreSQL has no type for are kept in its columns, and statements that carry them.

use deadpool_postgres::ClientWrapper;
use glowplug_core::{RequestId, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};
use uuid::Uuid;

use super::failure::{Failure, Fault, Kind};
use crate::records::Priority;

pub(super) type Db = ClientWrapper;
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

pub(super) async fn rows(db: &Db, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Failure> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.query(&statement, params).await?)
}

pub(super) async fn row(db: &Db, sql: &str, params: Params<'_>) -> Result<Option<Row>, Failure> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.query_opt(&statement, params).await?)
}

/// Returns how many rows were touched.
pub(super) async fn run(db: &Db, sql: &str, params: Params<'_>) -> Result<u64, Failure> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.execute(&statement, params).await?)
}

/// A value that has not the type we wrote was changed by somebody else.
pub(super) fn value<'r, T: FromSql<'r>>(row: &'r Row, column: usize) -> Result<T, Failure> {
    row.try_get(column).map_err(|error| damaged(&error))
}

fn damaged(problem: &dyn std::fmt::Display) -> Failure {
    Fault::new(Kind::Damaged, problem.to_string()).into()
}

pub(super) fn uuid(id: RequestId) -> Uuid {
    Uuid::from_u128(id.0)
}

pub(super) fn request_id(row: &Row, column: usize) -> Result<RequestId, Failure> {
    Ok(RequestId(value::<Uuid>(row, column)?.as_u128()))
}

/// The server's integers end half way through ours. What lies beyond is stored as the last moment, which
/// is read back as [`Timestamp::MAX`]: "never" stays "never".
pub(super) fn micros(at: Timestamp) -> i64 {
    i64::try_from(at.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn from_micros(micros: i64) -> Timestamp {
    match u64::try_from(micros) {
        Ok(micros) if micros < i64::MAX as u64 => Timestamp::from_micros(micros),
        Ok(_) => Timestamp::MAX,
        Err(_) => Timestamp::ZERO,
    }
}

pub(super) fn timestamp(row: &Row, column: usize) -> Result<Timestamp, Failure> {
    value(row, column).map(from_micros)
}

pub(super) fn optional_timestamp(row: &Row, column: usize) -> Result<Option<Timestamp>, Failure> {
    Ok(value::<Option<i64>>(row, column)?.map(from_micros))
}

/// No table has as many rows as the server's largest integer, so as a limit it means none.
pub(super) fn number(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

/// An integer that fits its type because it came from one.
pub(super) fn count<T: TryFrom<i64>>(row: &Row, column: usize) -> Result<T, Failure> {
    let count: i64 = value(row, column)?;
    T::try_from(count).map_err(|_| damaged(&format_args!("{count} is no count")))
}

pub(super) fn status(row: &Row, column: usize) -> Result<u16, Failure> {
    let status: i32 = value(row, column)?;
    u16::try_from(status).map_err(|_| damaged(&format_args!("{status} is no status")))
}

/// Boots are counted by a sequence of the server, which ends with its integers.
pub(super) fn boot(row: &Row, column: usize) -> Result<u32, Failure> {
    let boot: i32 = value(row, column)?;
    u32::try_from(boot).map_err(|_| damaged(&format_args!("{boot} is no count of starts")))
}

pub(super) fn boot_number(boot: u32) -> i32 {
    i32::try_from(boot).unwrap_or(i32::MAX)
}

pub(super) fn priority_number(priority: Priority) -> i16 {
    match priority {
        Priority::Normal => 0,
        Priority::Low => 1,
    }
}

pub(super) fn priority(row: &Row, column: usize) -> Result<Priority, Failure> {
    match value::<i16>(row, column)? {
        0 => Ok(Priority::Normal),
        1 => Ok(Priority::Low),
        other => Err(damaged(&format_args!("{other} is no priority"))),
    }
}

/// Lists are JSON: nothing is ever searched inside them, and people can read them.
pub(super) fn json_text<T: serde::Serialize>(list: &[T]) -> Result<String, Failure> {
    serde_json::to_string(list).map_err(|error| damaged(&error))
}

pub(super) fn json_list<T: serde::de::DeserializeOwned>(
    row: &Row,
    column: usize,
) -> Result<Vec<T>, Failure> {
    serde_json::from_str(value(row, column)?).map_err(|error| damaged(&error))
}

/// What apps and people write may hold the one character that the server's texts cannot.
pub(super) fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
