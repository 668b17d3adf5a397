//! Dropping complete requests in SQL.

use super::columns::{micros, number, row, rows, run, value};
use super::failure::Failure;
use super::writer::Group;
use crate::records::Retention;

const SELECT_TOTALS: &str = "SELECT count(*), coalesce(sum(bytes), 0)::bigint FROM completions";
const SELECT_OLD: &str = "SELECT place FROM completions WHERE at < $1 ORDER BY at, place LIMIT $2";
/// What came last is kept first. Only asked when there is too much, because it reads the whole index.
const SELECT_SURPLUS: &str = "SELECT place FROM ( \
     SELECT place, at, row_number() OVER newest_first AS nth, sum(bytes) OVER newest_first AS upto \
     FROM completions WINDOW newest_first AS (ORDER BY at DESC, place DESC)) AS ranked \
     WHERE at < $1 OR nth > $3 OR upto > $4::bigint ORDER BY at, place LIMIT $2";
/// Nodes that purge at once do not wait for each other, and none drops the same twice.
const TAKE: &str = "SELECT place FROM completions WHERE place = ANY ($1::bigint[]) \
     FOR UPDATE SKIP LOCKED";
/// The request last: whoever adds to its log holds a share of it.
const DROP: [&str; 6] = [
    "DELETE FROM requests WHERE place = ANY ($1::bigint[])",
    "DELETE FROM request_logs WHERE place = ANY ($1::bigint[])",
    "DELETE FROM request_log_totals WHERE place = ANY ($1::bigint[])",
    "DELETE FROM delivery_attempts WHERE place = ANY ($1::bigint[])",
    "DELETE FROM deliveries WHERE place = ANY ($1::bigint[])",
    "DELETE FROM completions WHERE place = ANY ($1::bigint[])",
];

pub(super) async fn purge(
    group: &Group<'_>,
    (retention, limit): &(Retention, usize),
) -> Result<usize, Failure> {
    let surplus = surplus(group, retention, *limit).await?;
    let taken = rows(group.db, TAKE, &[&surplus]).await?;
    let places = taken.iter().map(|row| value(row, 0)).collect::<Result<Vec<i64>, _>>()?;
    for sql in DROP.into_iter().filter(|_| !places.is_empty()) {
        run(group.db, sql, &[&places]).await?;
    }
    Ok(places.len())
}

async fn surplus(
    group: &Group<'_>,
    retention: &Retention,
    limit: usize,
) -> Result<Vec<i64>, Failure> {
    let (before, limit) = (micros(retention.ended_before), number(limit));
    let (requests_max, bytes_max) = (number(retention.requests_max), number(retention.bytes_max));
    let totals = row(group.db, SELECT_TOTALS, &[]).await?;
    let (requests, bytes) = match &totals {
        Some(row) => (value::<i64>(row, 0)?, value::<i64>(row, 1)?),
        None => (0, 0),
    };
    let found = if requests > requests_max || bytes > bytes_max {
        let params: super::columns::Params<'_> = &[&before, &limit, &requests_max, &bytes_max];
        rows(group.db, SELECT_SURPLUS, params).await?
    } else {
        rows(group.db, SELECT_OLD, &[&before, &limit]).await?
    };
    found.iter().map(|row| value(row, 0)).collect()
}
