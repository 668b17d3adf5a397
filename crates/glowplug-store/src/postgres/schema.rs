//! The tables of a store and their versions.
//!
//! Each store has a schema of its own in the database. Its version is the number of migrations that
//! were done. Nodes that start at once agree by an advisory lock which of them migrates.

use tokio_postgres::Client;

use super::failure::{Failure, Fault, Kind};
use crate::store::StoreError;

pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_queue.sql"),
    include_str!("migrations/0002_settings_keys_journal.sql"),
    include_str!("migrations/0003_attempts.sql"),
];
/// The oldest server that is tested against and still supported by its makers.
const SERVER_VERSION_MIN: i32 = 140_000;
/// Half of the advisory lock's key; the other half is the schema's name.
const LOCK_CLASS: i32 = 0x676c_6f77;

pub(super) fn newest() -> u32 {
    u32::try_from(MIGRATIONS.len()).expect("there are few migrations")
}

pub(super) async fn migrate(db: &Client, schema: &str, place: &str) -> Result<(), Failure> {
    inspect_server(db, place).await?;
    // The name was checked: it has only letters, digits and underscores. Statements that run in one
    // text share one transaction, and an error or a lost connection undoes all of it.
    db.batch_execute("BEGIN; SET LOCAL statement_timeout = 0").await?;
    db.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", &[&LOCK_CLASS, &schema]).await?;
    let found = version(db, schema).await?;
    if found > newest() {
        let (path, known) = (place.to_owned(), newest());
        return Err(StoreError::TooNew { path, found, known }.into());
    }
    for (version, sql) in (1_i32..).zip(MIGRATIONS).skip(found as usize) {
        tracing::info!(%place, schema, version, "migrating the database");
        db.batch_execute(sql).await?;
        db.execute("UPDATE schema_version SET version = $1", &[&version]).await?;
    }
    db.batch_execute("COMMIT").await?;
    Ok(())
}

/// Creates the schema, if it is not there, with the table that says its version.
async fn version(db: &Client, schema: &str) -> Result<u32, Failure> {
    let exists = db
        .query_one("SELECT to_regclass($1) IS NOT NULL", &[&format!("{schema}.schema_version")])
        .await?;
    if !exists.get::<_, bool>(0) {
        refuse_foreign_tables(db, schema).await?;
        let made = db.query_one("SELECT to_regnamespace($1) IS NOT NULL", &[&schema]).await?;
        // A schema that an administrator made needs no right to make one.
        if !made.get::<_, bool>(0) {
            db.batch_execute(&format!("CREATE SCHEMA {schema}")).await?;
        }
        db.batch_execute(
            "CREATE TABLE schema_version (version integer NOT NULL); \
             INSERT INTO schema_version VALUES (0)",
        )
        .await?;
    }
    let row = db.query_one("SELECT version FROM schema_version", &[]).await?;
    let version = row.get::<_, i32>(0);
    u32::try_from(version)
        .map_err(|_| Fault::new(Kind::Damaged, format!("its version is {version}")).into())
}

async fn refuse_foreign_tables(db: &Client, schema: &str) -> Result<(), Failure> {
    let tables = db
        .query_one("SELECT count(*) FROM pg_tables WHERE schemaname = $1", &[&schema])
        .await?
        .get::<_, i64>(0);
    if tables == 0 {
        return Ok(());
    }
    let problem =
        format!("the schema `{schema}` has tables of another program; choose another schema");
    Err(Fault::new(Kind::Statement, problem).into())
}

async fn inspect_server(db: &Client, place: &str) -> Result<(), Failure> {
    let row = db
        .query_one(
            "SELECT current_setting('server_version_num')::integer, current_setting('fsync'), \
             current_setting('server_version')",
            &[],
        )
        .await?;
    if row.get::<_, i32>(0) < SERVER_VERSION_MIN {
        let problem = format!(
            "the server is PostgreSQL {}, and the oldest that works is 14; upgrade it",
            row.get::<_, &str>(2)
        );
        return Err(Fault::new(Kind::Statement, problem).into());
    }
    if row.get::<_, &str>(1) != "on" {
        tracing::warn!(
            %place,
            "the server does not wait for its disk (`fsync` is off): a crash of its machine loses \
             what was accepted, and may damage the database"
        );
    }
    Ok(())
}
