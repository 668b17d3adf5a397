//! How values that SQLite has no type for are kept in its columns.

use glowplug_core::{RequestId, Timestamp};
use rusqlite::types::Type;
use rusqlite::{Error, Row, RowIndex};

use crate::records::Priority;

/// Ids are 16 bytes, most significant first, so that those made from the time sort by it.
pub(super) fn id_bytes(id: RequestId) -> [u8; 16] {
    id.0.to_be_bytes()
}

pub(super) fn request_id(row: &Row<'_>, column: usize) -> rusqlite::Result<RequestId> {
    Ok(RequestId(u128::from_be_bytes(row.get(column)?)))
}

/// SQLite's integers end half way through ours, in the year 294,247. What lies beyond is stored as
/// the last moment, which is read back as [`Timestamp::MAX`]: "never" stays "never".
pub(super) fn micros(at: Timestamp) -> i64 {
    i64::try_from(at.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn timestamp(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Timestamp> {
    row.get(column).map(from_micros)
}

pub(super) fn optional_timestamp(
    row: &Row<'_>,
    column: impl RowIndex,
) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(from_micros))
}

fn from_micros(micros: i64) -> Timestamp {
    match u64::try_from(micros) {
        Ok(micros) if micros < i64::MAX as u64 => Timestamp::from_micros(micros),
        Ok(_) => Timestamp::MAX,
        Err(_) => Timestamp::ZERO,
    }
}

/// No table has as many rows as SQLite's largest integer, so as a limit it means none.
pub(super) fn row_number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<usize> {
    let count: i64 = row.get(column)?;
    usize::try_from(count).map_err(|_| Error::IntegralValueOutOfRange(column, count))
}

pub(super) fn priority_number(priority: Priority) -> i64 {
    match priority {
        Priority::Normal => 0,
        Priority::Low => 1,
    }
}

pub(super) fn priority(row: &Row<'_>, column: usize) -> rusqlite::Result<Priority> {
    match row.get(column)? {
        0 => Ok(Priority::Normal),
        1 => Ok(Priority::Low),
        other => Err(Error::IntegralValueOutOfRange(column, other)),
    }
}

/// Lists are JSON: nothing is ever searched inside them, and people can read them.
pub(super) fn json_text<T: serde::Serialize>(list: &[T]) -> rusqlite::Result<String> {
    serde_json::to_string(list).map_err(|error| Error::ToSqlConversionFailure(error.into()))
}

pub(super) fn json_list<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<Vec<T>> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text)
        .map_err(|error| Error::FromSqlConversionFailure(column, Type::Text, error.into()))
}
