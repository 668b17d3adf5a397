//! The journal of decisions in SQL.

use rusqlite::{Connection, params};

use super::columns::{json_list, json_text, micros, row_number, timestamp};
use super::failure::Failure;
use crate::records::JournalRecord;

pub(super) const SELECT_ABOUT: &str = "SELECT at, subjects, sentence, json FROM ( \
         SELECT place FROM journal_subjects WHERE subject = ?1 ORDER BY place DESC LIMIT ?2 \
     ) JOIN journal USING (place) ORDER BY place";

pub(super) fn append(
    conn: &Connection,
    records: &[JournalRecord],
    records_max: usize,
) -> Result<(), Failure> {
    let mut insert = conn.prepare_cached(
        "INSERT INTO journal (at, subjects, sentence, json) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let mut mark = conn.prepare_cached(
        // A record may name a subject twice; it is still found once.
        "INSERT OR IGNORE INTO journal_subjects (subject, place) VALUES (?1, ?2)",
    )?;
    for record in records {
        let subjects = json_text(&record.subjects)?;
        insert.execute(params![micros(record.at), subjects, record.sentence, record.json])?;
        let place = conn.last_insert_rowid();
        for subject in &record.subjects {
            mark.execute(params![subject, place])?;
        }
    }
    trim(conn, records_max)
}

/// Drops the oldest records beyond the limit: usually as many as were just added.
fn trim(conn: &Connection, records_max: usize) -> Result<(), Failure> {
    let newest: Option<i64> =
        conn.prepare_cached("SELECT max(place) FROM journal")?.query_row([], |row| row.get(0))?;
    let last_to_drop = newest.unwrap_or(0).saturating_sub(row_number(records_max));
    let mut surplus =
        conn.prepare_cached("SELECT place, subjects FROM journal WHERE place <= ?1")?;
    let mut unmark =
        conn.prepare_cached("DELETE FROM journal_subjects WHERE subject = ?1 AND place = ?2")?;
    let mut rows = surplus.query([last_to_drop])?;
    while let Some(row) = rows.next()? {
        let place: i64 = row.get(0)?;
        for subject in json_list::<String>(row, 1)? {
            unmark.execute(params![subject, place])?;
        }
    }
    conn.prepare_cached("DELETE FROM journal WHERE place <= ?1")?.execute([last_to_drop])?;
    Ok(())
}

pub(super) fn about(
    conn: &Connection,
    subject: &str,
    limit: usize,
) -> Result<Vec<JournalRecord>, Failure> {
    let mut statement = conn.prepare_cached(SELECT_ABOUT)?;
    let rows = statement.query_map(params![subject, row_number(limit)], |row| {
        Ok(JournalRecord {
            at: timestamp(row, 0)?,
            subjects: json_list(row, 1)?,
            sentence: row.get(2)?,
            json: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
