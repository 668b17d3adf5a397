//! The tables, and how an older file gets them.
//!
//! `PRAGMA user_version` holds how many migrations a file has had. Migrations are only ever added at
//! the end; one that has been released is never changed.

use rusqlite::{Connection, TransactionBehavior};

/// Each takes the file from the version of its index to the next.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_queue.sql"),
    include_str!("migrations/0002_settings_and_keys.sql"),
    include_str!("migrations/0003_journal.sql"),
    include_str!("migrations/0004_owners_webhooks_and_files.sql"),
    include_str!("migrations/0005_attempts.sql"),
];

/// Marks a file as ours: "GLOW".
pub(super) const APPLICATION_ID: u32 = 0x474c_4f57;

/// The version of a file that has had all migrations.
pub(super) fn newest(migrations: &[&str]) -> u32 {
    u32::try_from(migrations.len()).unwrap_or(u32::MAX)
}

/// How many migrations the file has had.
pub(super) fn version(conn: &Connection) -> rusqlite::Result<u32> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings the file up to date, each step in a transaction: a step that fails leaves the file at the
/// version before it.
pub(super) fn migrate(conn: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    let found = version(conn)?;
    for (sql, version) in migrations.iter().zip(1_u32..).skip(found as usize) {
        let step = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        step.execute_batch(sql)?;
        step.pragma_update(None, "application_id", APPLICATION_ID)?;
        step.pragma_update(None, "user_version", version)?;
        step.commit()?;
        tracing::debug!(version, "migrated the database");
    }
    Ok(())
}
