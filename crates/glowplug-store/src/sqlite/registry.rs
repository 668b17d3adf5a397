//! What the node itself remembers in SQL: its starts, settings and keys.

use rusqlite::{Connection, params};

use super::columns::{micros, timestamp};
use super::failure::Failure;
use crate::records::KeyRecord;

pub(super) fn begin_boot(conn: &Connection) -> Result<u32, Failure> {
    let boots = conn
        .prepare_cached("UPDATE node SET boots = boots + 1 RETURNING boots")?
        .query_row([], |row| row.get(0))?;
    Ok(boots)
}

/// Writes something nobody needs, and returns what [`last_check`] must then read.
pub(super) fn write_check(conn: &Connection) -> Result<i64, Failure> {
    let number = conn
        .prepare_cached("UPDATE node SET checks = checks + 1 RETURNING checks")?
        .query_row([], |row| row.get(0))?;
    Ok(number)
}

pub(super) fn last_check(conn: &Connection) -> Result<i64, Failure> {
    Ok(conn.prepare_cached("SELECT checks FROM node")?.query_row([], |row| row.get(0))?)
}

pub(super) fn put_setting(
    conn: &Connection,
    app: &str,
    key: &str,
    json: &str,
) -> Result<(), Failure> {
    conn.prepare_cached(
        "INSERT INTO settings (app, key, json) VALUES (?1, ?2, ?3) \
         ON CONFLICT (app, key) DO UPDATE SET json = excluded.json",
    )?
    .execute([app, key, json])?;
    Ok(())
}

pub(super) fn claim_setting(
    conn: &Connection,
    app: &str,
    key: &str,
    json: &str,
) -> Result<String, Failure> {
    let kept = conn
        .prepare_cached(
            "INSERT INTO settings (app, key, json) VALUES (?1, ?2, ?3) \
             ON CONFLICT (app, key) DO UPDATE SET json = settings.json RETURNING json",
        )?
        .query_row([app, key, json], |row| row.get(0))?;
    Ok(kept)
}

pub(super) fn delete_setting(conn: &Connection, app: &str, key: &str) -> Result<(), Failure> {
    conn.prepare_cached("DELETE FROM settings WHERE app = ?1 AND key = ?2")?.execute([app, key])?;
    Ok(())
}

pub(super) fn settings(conn: &Connection) -> Result<Vec<(String, String, String)>, Failure> {
    let mut statement =
        conn.prepare_cached("SELECT app, key, json FROM settings ORDER BY app, key")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn put_key(conn: &Connection, key: &KeyRecord) -> Result<(), Failure> {
    conn.prepare_cached(
        "INSERT INTO keys (id, secret_sha256, alias, scope, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (id) DO UPDATE SET secret_sha256 = excluded.secret_sha256, \
         alias = excluded.alias, scope = excluded.scope, created_at = excluded.created_at",
    )?
    .execute(params![
        key.id,
        key.secret_sha256,
        key.alias,
        key.scope,
        micros(key.created_at)
    ])?;
    Ok(())
}

pub(super) fn delete_key(conn: &Connection, id: &str) -> Result<bool, Failure> {
    Ok(conn.prepare_cached("DELETE FROM keys WHERE id = ?1")?.execute([id])? == 1)
}

pub(super) fn keys(conn: &Connection) -> Result<Vec<KeyRecord>, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT id, secret_sha256, alias, scope, created_at FROM keys ORDER BY created_at, id",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(KeyRecord {
            id: row.get(0)?,
            secret_sha256: row.get(1)?,
            alias: row.get(2)?,
            scope: row.get(3)?,
            created_at: timestamp(row, 4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
