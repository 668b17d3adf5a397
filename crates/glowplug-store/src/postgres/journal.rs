//! The journal of decisions in SQL.

use super::columns::{Db, micros, number, row, rows, run, text, timestamp, value};
use super::failure::Failure;
use super::writer::Group;
use crate::records::JournalRecord;

/// The subjects of all records go as one list, each with the number of its record.
const APPEND: &str = "WITH given AS ( \
     SELECT nextval(pg_get_serial_sequence('journal', 'place')) AS place, at, sentence, json, nth \
     FROM unnest($1::bigint[], $2::text[], $3::text[]) WITH ORDINALITY \
     AS given (at, sentence, json, nth) ORDER BY nth), \
     about AS (SELECT nth, subject, word \
     FROM unnest($4::bigint[], $5::text[]) WITH ORDINALITY AS about (nth, subject, word)), \
     marked AS (INSERT INTO journal_subjects (subject, place) \
     SELECT subject, place FROM given JOIN about USING (nth) ON CONFLICT DO NOTHING) \
     INSERT INTO journal (place, at, subjects, sentence, json) OVERRIDING SYSTEM VALUE \
     SELECT place, at, ARRAY(SELECT subject FROM about WHERE about.nth = given.nth ORDER BY word), \
     sentence, json FROM given";
const SELECT_SURPLUS: &str = "SELECT place FROM journal ORDER BY place DESC OFFSET $1 LIMIT 1";
const TRIM: &str = "WITH old AS (DELETE FROM journal WHERE place <= $1 RETURNING place, subjects) \
     DELETE FROM journal_subjects USING old \
     WHERE journal_subjects.place = old.place AND subject = ANY (old.subjects)";
const SELECT_ABOUT: &str = "SELECT at, subjects, sentence, json \
     FROM journal JOIN (SELECT place FROM journal_subjects WHERE subject = $1 \
     ORDER BY place DESC LIMIT $2) AS about USING (place) ORDER BY place";

pub(super) async fn append(
    group: &Group<'_>,
    (records, trim_to): &(Vec<JournalRecord>, Option<usize>),
) -> Result<(), Failure> {
    let times: Vec<_> = records.iter().map(|record| micros(record.at)).collect();
    let sentences: Vec<_> = records.iter().map(|record| text(&record.sentence)).collect();
    let jsons: Vec<_> = records.iter().map(|record| text(&record.json)).collect();
    let (numbers, subjects): (Vec<i64>, Vec<String>) = (1_i64..)
        .zip(records)
        .flat_map(|(nth, record)| record.subjects.iter().map(move |subject| (nth, text(subject))))
        .unzip();
    run(group.db, APPEND, &[&times, &sentences, &jsons, &numbers, &subjects]).await?;
    match trim_to {
        Some(records_max) => trim(group, *records_max).await,
        None => Ok(()),
    }
}

/// Drops the oldest beyond `records_max`.
async fn trim(group: &Group<'_>, records_max: usize) -> Result<(), Failure> {
    if let Some(surplus) = row(group.db, SELECT_SURPLUS, &[&number(records_max)]).await? {
        run(group.db, TRIM, &[&value::<i64>(&surplus, 0)?]).await?;
    }
    Ok(())
}

pub(super) async fn about(
    db: &Db,
    (subject, limit): &(String, usize),
) -> Result<Vec<JournalRecord>, Failure> {
    let found = rows(db, SELECT_ABOUT, &[subject, &number(*limit)]).await?;
    found
        .iter()
        .map(|row| {
            let (subjects, sentence) = (value(row, 1)?, value(row, 2)?);
            Ok(JournalRecord { at: timestamp(row, 0)?, subjects, sentence, json: value(row, 3)? })
        })
        .collect()
}
