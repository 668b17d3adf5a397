//! The log lines of requests in SQL.

use glowplug_core::{RequestId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::columns::{count, micros, row_number, timestamp};
use super::failure::Failure;
use super::queue::place_of;
use crate::records::RequestLogLine;

pub(super) fn append(
    conn: &Connection,
    id: RequestId,
    lines: &[RequestLogLine],
    lines_max: usize,
) -> Result<(), Failure> {
    match place_of(conn, id)? {
        Some(place) => append_at(conn, place, lines, lines_max),
        None => Ok(()),
    }
}

pub(super) fn append_at(
    conn: &Connection,
    place: i64,
    lines: &[RequestLogLine],
    lines_max: usize,
) -> Result<(), Failure> {
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
    match drop.last() {
        Some(last) => count_dropped(conn, place, drop.len(), last.at),
        None => Ok(()),
    }
}

fn count_dropped(
    conn: &Connection,
    place: i64,
    lines: usize,
    last_at: Timestamp,
) -> Result<(), Failure> {
    conn.prepare_cached(
        "INSERT INTO request_logs_dropped (place, lines, at) VALUES (?1, ?2, ?3) \
         ON CONFLICT (place) DO UPDATE SET lines = lines + excluded.lines, at = excluded.at",
    )?
    .execute(params![place, row_number(lines), micros(last_at)])?;
    Ok(())
}

/// Takes in what [`of`] gave out elsewhere, where the last line may stand for others.
pub(super) fn take_in(
    conn: &Connection,
    place: i64,
    lines: &[RequestLogLine],
    lines_max: usize,
) -> Result<(), Failure> {
    let (lines, dropped) = RequestLogLine::split_notice(lines);
    append_at(conn, place, lines, lines_max)?;
    match dropped {
        Some((dropped, last_at)) => count_dropped(conn, place, dropped, last_at),
        None => Ok(()),
    }
}

pub(super) fn of(conn: &Connection, id: RequestId) -> Result<Vec<RequestLogLine>, Failure> {
    match place_of(conn, id)? {
        Some(place) => at(conn, place),
        None => Ok(Vec::new()),
    }
}

pub(super) fn at(conn: &Connection, place: i64) -> Result<Vec<RequestLogLine>, Failure> {
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
