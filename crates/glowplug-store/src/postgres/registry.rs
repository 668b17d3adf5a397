//! Nodes, settings and keys in SQL.

use std::time::Duration;

use uuid::Uuid;

use super::columns::{Db, boot, boot_number, micros, row, rows, run, timestamp, value};
use super::failure::{Failure, Fault, Kind};
use super::notices::{Notice, Sender};
use super::webhooks;
use super::writer::Group;
use crate::records::KeyRecord;

const BEGIN: &str = "INSERT INTO nodes (boot, lease_until) \
     VALUES (nextval('boots')::integer, clock_timestamp() + make_interval(secs => $1)) \
     RETURNING boot";
const RENEW: &str = "INSERT INTO nodes (boot, lease_until) \
     VALUES ($1, clock_timestamp() + make_interval(secs => $2)) \
     ON CONFLICT (boot) DO UPDATE SET lease_until = excluded.lease_until";
const END: &str = "DELETE FROM nodes WHERE boot = $1";
const RELEASE: &str = "WITH gone AS (DELETE FROM nodes WHERE boot = $1 RETURNING boot) \
     SELECT pg_notify($2, $3) FROM gone";
/// Nodes that died and left nothing.
const SWEEP: &str = "DELETE FROM nodes \
     WHERE lease_until < clock_timestamp() - make_interval(secs => $1) \
     AND NOT EXISTS (SELECT 1 FROM pending WHERE owner = boot)";
const WRITE_CHECK: &str = "INSERT INTO checks AS old (node, number, at) \
     VALUES ($1, 1, clock_timestamp()) \
     ON CONFLICT (node) DO UPDATE SET number = old.number + 1, at = excluded.at RETURNING number";
const FORGET_CHECKS: &str =
    "DELETE FROM checks WHERE at < clock_timestamp() - make_interval(secs => $1)";

/// How long a node that died without leaving anything is still listed.
const DEAD_NODE_KEPT: Duration = Duration::from_hours(24);

/// A new boot takes the place of the one that this store had before, if any.
pub(super) async fn begin_boot(
    group: &Group<'_>,
    (earlier, lease): &(u32, Duration),
) -> Result<u32, Failure> {
    if *earlier != 0 {
        run(group.db, END, &[&boot_number(*earlier)]).await?;
        group.notices.add(Notice::Orphaned);
    }
    let Some(row) = row(group.db, BEGIN, &[&lease.as_secs_f64()]).await? else {
        return Err(Fault::new(Kind::Statement, "the start was not counted").into());
    };
    let boot = boot(&row, 0)?;
    webhooks::take_back(group, boot).await?;
    Ok(boot)
}

/// Lets the others take over at once.
pub(super) async fn release(db: &Db, (boot, sender): &(u32, Sender)) -> Result<(), Failure> {
    let notice = sender.text(Notice::Orphaned);
    run(db, RELEASE, &[&boot_number(*boot), &sender.channel, &notice]).await?;
    Ok(())
}

pub(super) async fn renew(db: &Db, boot: u32, lease: Duration) -> Result<(), Failure> {
    run(db, RENEW, &[&boot_number(boot), &lease.as_secs_f64()]).await?;
    Ok(())
}

pub(super) async fn sweep(db: &Db) -> Result<(), Failure> {
    let kept = DEAD_NODE_KEPT.as_secs_f64();
    run(db, SWEEP, &[&kept]).await?;
    run(db, FORGET_CHECKS, &[&kept]).await?;
    Ok(())
}

/// Writes something nobody needs, and returns what [`last_check`] must then read.
pub(super) async fn write_check(group: &Group<'_>, node: &Uuid) -> Result<i64, Failure> {
    match row(group.db, WRITE_CHECK, &[node]).await? {
        Some(row) => value(&row, 0),
        None => Ok(i64::MAX),
    }
}

pub(super) async fn last_check(db: &Db, node: &Uuid) -> Result<i64, Failure> {
    match row(db, "SELECT number FROM checks WHERE node = $1", &[node]).await? {
        Some(row) => value(&row, 0),
        None => Ok(0),
    }
}

/// An app, a key and a value.
pub(super) type Setting = (String, String, String);

pub(super) async fn put_setting(
    group: &Group<'_>,
    (app, key, json): &Setting,
) -> Result<(), Failure> {
    let sql = "INSERT INTO settings (app, key, json) VALUES ($1, $2, $3) \
         ON CONFLICT (app, key) DO UPDATE SET json = excluded.json";
    run(group.db, sql, &[app, key, json]).await?;
    tell(group, app);
    Ok(())
}

/// What is of no app is the node's own bookkeeping, and there may be much of it.
fn tell(group: &Group<'_>, app: &str) {
    if !app.is_empty() {
        group.notices.add(Notice::Settings);
    }
}

/// Keeps the value that is there, if there is one, and returns the one that is kept.
pub(super) async fn claim_setting(
    group: &Group<'_>,
    (app, key, json): &Setting,
) -> Result<String, Failure> {
    // An update that changes nothing returns the row whoever wrote it, and waits for a racer.
    let sql = "INSERT INTO settings AS old (app, key, json) VALUES ($1, $2, $3) \
         ON CONFLICT (app, key) DO UPDATE SET json = old.json RETURNING json";
    match row(group.db, sql, &[app, key, json]).await? {
        Some(row) => value(&row, 0),
        None => Err(Fault::new(Kind::Statement, "the setting was not kept").into()),
    }
}

pub(super) async fn delete_setting(
    group: &Group<'_>,
    (app, key): &(String, String),
) -> Result<(), Failure> {
    run(group.db, "DELETE FROM settings WHERE app = $1 AND key = $2", &[app, key]).await?;
    tell(group, app);
    Ok(())
}

pub(super) async fn settings(db: &Db, (): &()) -> Result<Vec<Setting>, Failure> {
    let found = rows(db, "SELECT app, key, json FROM settings ORDER BY app, key", &[]).await?;
    found.iter().map(|row| Ok((value(row, 0)?, value(row, 1)?, value(row, 2)?))).collect()
}

pub(super) async fn put_key(group: &Group<'_>, key: &KeyRecord) -> Result<(), Failure> {
    let sql = "INSERT INTO keys (id, secret_sha256, alias, scope, created_at) \
         VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (id) DO UPDATE SET secret_sha256 = excluded.secret_sha256, \
         alias = excluded.alias, scope = excluded.scope, created_at = excluded.created_at";
    let secret = &key.secret_sha256[..];
    let created_at = micros(key.created_at);
    run(group.db, sql, &[&key.id, &secret, &key.alias, &key.scope, &created_at]).await?;
    group.notices.add(Notice::Settings);
    Ok(())
}

pub(super) async fn delete_key(group: &Group<'_>, id: &String) -> Result<bool, Failure> {
    let was_there = run(group.db, "DELETE FROM keys WHERE id = $1", &[id]).await? == 1;
    group.notices.add(Notice::Settings);
    Ok(was_there)
}

pub(super) async fn keys(db: &Db, (): &()) -> Result<Vec<KeyRecord>, Failure> {
    let sql =
        "SELECT id, secret_sha256, alias, scope, created_at FROM keys ORDER BY created_at, id";
    let found = rows(db, sql, &[]).await?;
    found
        .iter()
        .map(|row| {
            Ok(KeyRecord {
                id: value(row, 0)?,
                secret_sha256: value::<&[u8]>(row, 1)?
                    .try_into()
                    .map_err(|_| Fault::new(Kind::Damaged, "the hash of a key has not 32 bytes"))?,
                alias: value(row, 2)?,
                scope: value(row, 3)?,
                created_at: timestamp(row, 4)?,
            })
        })
        .collect()
}
