//! The log lines of requests in SQL.

use glowplug_core::RequestId;

use super::columns::{Db, count, micros, number, row, rows, run, text, timestamp, uuid, value};
use super::failure::Failure;
use super::writer::Group;
use crate::records::RequestLogLine;

/// The row of totals orders appends to one request that come at once. The share lock keeps the request
/// from being purged in between.
const APPEND: &str = "WITH request AS (SELECT place FROM requests WHERE id = $1 FOR KEY SHARE), \
     total AS (INSERT INTO request_log_totals AS old (place, lines, at) \
     SELECT place, $2, $3 FROM request \
     ON CONFLICT (place) DO UPDATE SET lines = old.lines + excluded.lines, at = excluded.at \
     RETURNING place, lines - $2 AS before) \
     INSERT INTO request_logs (place, line, at, level, source, message) \
     SELECT place, before + nth, line_at, level, source, message FROM total, \
     unnest($4::bigint[], $5::text[], $6::text[], $7::text[]) WITH ORDINALITY \
     AS added (line_at, level, source, message, nth) WHERE before + nth <= $8";
const SELECT_LINES: &str = "SELECT request_logs.at, level, source, message \
     FROM requests JOIN request_logs USING (place) WHERE id = $1 ORDER BY line";
const SELECT_TOTAL: &str = "SELECT lines, request_log_totals.at \
     FROM requests JOIN request_log_totals USING (place) WHERE id = $1";

pub(super) async fn append(
    group: &Group<'_>,
    (id, lines, lines_max): &(RequestId, Vec<RequestLogLine>, usize),
) -> Result<(), Failure> {
    let Some(last) = lines.last() else { return Ok(()) };
    let times: Vec<_> = lines.iter().map(|line| micros(line.at)).collect();
    let column = |of: fn(&RequestLogLine) -> &str| -> Vec<String> {
        lines.iter().map(|line| text(of(line))).collect()
    };
    run(
        group.db,
        APPEND,
        &[
            &uuid(*id),
            &number(lines.len()),
            &micros(last.at),
            &times,
            &column(|line| &line.level),
            &column(|line| &line.source),
            &column(|line| &line.message),
            &number(*lines_max),
        ],
    )
    .await?;
    Ok(())
}

pub(super) async fn lines(db: &Db, id: &RequestId) -> Result<Vec<RequestLogLine>, Failure> {
    // In this order, lines that come meanwhile are not taken for dropped ones.
    let total = row(db, SELECT_TOTAL, &[&uuid(*id)]).await?;
    let mut lines = rows(db, SELECT_LINES, &[&uuid(*id)])
        .await?
        .iter()
        .map(|row| {
            let (level, source) = (value(row, 1)?, value(row, 2)?);
            Ok(RequestLogLine { at: timestamp(row, 0)?, level, source, message: value(row, 3)? })
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    if let Some(total) = total {
        let dropped = count::<usize>(&total, 0)?.saturating_sub(lines.len());
        if dropped > 0 {
            lines.push(RequestLogLine::dropped_notice(dropped, timestamp(&total, 1)?));
        }
    }
    Ok(lines)
}
