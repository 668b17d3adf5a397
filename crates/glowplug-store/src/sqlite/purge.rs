//! Dropping complete requests in SQL.

use rusqlite::{Connection, params};

use super::columns::{micros, row_number};
use super::failure::Failure;
use crate::records::Retention;

pub(super) const SELECT_ENDED: &str =
    "SELECT place, at, kept_bytes FROM completions ORDER BY at, place LIMIT ?1";

/// What was dropped.
pub(super) struct Purged {
    pub(super) requests: usize,
    /// Files of bodies that nothing names any more.
    pub(super) files: Vec<String>,
}

pub(super) fn purge(
    conn: &Connection,
    retention: Retention,
    limit: usize,
) -> Result<Purged, Failure> {
    let (places, bytes) = beyond(conn, retention, limit)?;
    let files = files(conn, &places)?;
    for statement in [
        "DELETE FROM request_logs WHERE place = ?1",
        "DELETE FROM request_logs_dropped WHERE place = ?1",
        "DELETE FROM delivery_calls WHERE place = ?1",
        "DELETE FROM deliveries WHERE place = ?1",
        "DELETE FROM completions WHERE place = ?1",
        "DELETE FROM requests WHERE place = ?1",
    ] {
        let mut delete = conn.prepare_cached(statement)?;
        for place in &places {
            delete.execute([place])?;
        }
    }
    conn.prepare_cached(
        "UPDATE node SET complete_requests = complete_requests - ?1, \
         complete_bytes = complete_bytes - ?2",
    )?
    .execute(params![row_number(places.len()), bytes])?;
    Ok(Purged { requests: places.len(), files })
}

/// The places of what goes, and the bytes that were kept for them.
fn beyond(
    conn: &Connection,
    retention: Retention,
    limit: usize,
) -> Result<(Vec<i64>, i64), Failure> {
    let as_limit = |limit: u64| i64::try_from(limit).unwrap_or(i64::MAX);
    let (requests_max, bytes_max) =
        (as_limit(retention.requests_max), as_limit(retention.bytes_max));
    let before = micros(retention.ended_before);
    let (mut requests, mut bytes): (i64, i64) = conn
        .prepare_cached("SELECT complete_requests, complete_bytes FROM node")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (mut places, mut dropped_bytes) = (Vec::new(), 0);
    let mut oldest = conn.prepare_cached(SELECT_ENDED)?;
    let mut rows = oldest.query([row_number(limit)])?;
    while let Some(row) = rows.next()? {
        let (place, at, kept): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if at >= before && requests <= requests_max && bytes <= bytes_max {
            break;
        }
        requests -= 1;
        bytes -= kept;
        dropped_bytes += kept;
        places.push(place);
    }
    Ok((places, dropped_bytes))
}

fn files(conn: &Connection, places: &[i64]) -> Result<Vec<String>, Failure> {
    let mut named = conn.prepare_cached(
        "SELECT requests.body_file, completions.body_file \
         FROM requests JOIN completions USING (place) WHERE place = ?1",
    )?;
    let mut files = Vec::new();
    for place in places {
        let both: (Option<String>, Option<String>) =
            named.query_row([place], |row| Ok((row.get(0)?, row.get(1)?)))?;
        files.extend(both.0.into_iter().chain(both.1));
    }
    Ok(files)
}
