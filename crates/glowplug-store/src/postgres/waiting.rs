//! Requests that are not complete, and whose they are, in SQL.

use glowplug_core::RequestId;
use tokio_postgres::Row;

use super::columns::{
    Db, boot, boot_number, count, json_list, number, optional_timestamp, priority, request_id, row,
    rows, run, timestamp, uuid, value,
};
use super::failure::Failure;
use super::notices::Notice;
use super::webhooks;
use super::writer::Group;
use crate::records::{QueuedHead, QueuedRequest};

const SELECT_PENDING: &str = "SELECT id, app, path, priority, submitted_at, start_deadline, \
     no_retry, retry_config, hint, caller, method, webhook_url, idempotency_key, keep_payload, \
     headers, body FROM pending JOIN requests USING (place, app) \
     WHERE pending.place > coalesce((SELECT place FROM requests WHERE id = $1), 0) \
     ORDER BY pending.place LIMIT $2";
const SELECT_ONE_PENDING: &str = "SELECT id, app, path, priority, submitted_at, start_deadline, \
     no_retry, retry_config, hint, caller, method, webhook_url, idempotency_key, keep_payload, \
     headers, body FROM requests JOIN pending USING (place, app) WHERE id = $1";
const AHEAD: &str = "SELECT count(*) FROM requests JOIN pending ON pending.app = requests.app \
     AND pending.place < requests.place WHERE requests.id = $1";
/// The few owners are found by as many steps through the index, however many requests they have.
const DEAD: &str = "WITH RECURSIVE owners (owner) AS ( \
     (SELECT owner FROM pending ORDER BY owner LIMIT 1) UNION ALL \
     SELECT (SELECT pending.owner FROM pending WHERE pending.owner > owners.owner \
     ORDER BY pending.owner LIMIT 1) FROM owners WHERE owners.owner IS NOT NULL), \
     dead AS MATERIALIZED (SELECT owner FROM owners WHERE owner <> $1 AND NOT EXISTS ( \
     SELECT 1 FROM nodes WHERE boot = owner AND lease_until > clock_timestamp())) ";
/// After [`DEAD`]. Rows that another node is taking at this moment are skipped.
const ADOPT: &str = ", free AS ( \
     SELECT place FROM pending WHERE owner = ANY (ARRAY(SELECT owner FROM dead)) \
     ORDER BY place LIMIT $2 FOR UPDATE SKIP LOCKED), \
     taken AS (UPDATE pending SET owner = $1, started = false FROM free \
     WHERE pending.place = free.place RETURNING pending.place, pending.cancel_asked, \
     pending.attempts) \
     SELECT id, app, path, priority, submitted_at, start_deadline, no_retry, retry_config, hint, \
     caller, cancel_asked, attempts FROM taken JOIN requests USING (place) ORDER BY place";
const STARTED: &str = "UPDATE pending SET started = true, attempts = greatest(attempts, $3) \
     FROM requests WHERE requests.id = $1 AND pending.place = requests.place AND owner = $2 \
     AND (NOT started OR attempts < $3)";
const ASK_CANCEL: &str = "UPDATE pending SET cancel_asked = true FROM requests \
     WHERE requests.id = $1 AND pending.place = requests.place RETURNING owner";
const SELECT_CANCELS: &str = "SELECT id FROM pending JOIN requests USING (place) \
     WHERE owner = $1 AND cancel_asked ORDER BY place";

pub(super) async fn pending(
    db: &Db,
    (after, limit): &(Option<RequestId>, usize),
) -> Result<Vec<QueuedRequest>, Failure> {
    let found = rows(db, SELECT_PENDING, &[&after.map(uuid), &number(*limit)]).await?;
    found.iter().map(queued).collect()
}

pub(super) async fn pending_request(
    db: &Db,
    id: &RequestId,
) -> Result<Option<QueuedRequest>, Failure> {
    row(db, SELECT_ONE_PENDING, &[&uuid(*id)]).await?.as_ref().map(queued).transpose()
}

/// A row of [`SELECT_PENDING`] or [`SELECT_ONE_PENDING`].
pub(super) fn queued(row: &Row) -> Result<QueuedRequest, Failure> {
    let head = head(row)?;
    Ok(QueuedRequest {
        id: head.id,
        app: head.app,
        path: head.path,
        method: value(row, 10)?,
        headers: json_list(row, 14)?,
        body: value(row, 15)?,
        priority: head.priority,
        submitted_at: head.submitted_at,
        start_deadline: head.start_deadline,
        no_retry: head.no_retry,
        retry_config: head.retry_config,
        hint: head.hint,
        webhook_url: value(row, 11)?,
        idempotency_key: value(row, 12)?,
        keep_payload: value(row, 13)?,
        caller: head.caller,
    })
}

fn head(row: &Row) -> Result<QueuedHead, Failure> {
    Ok(QueuedHead {
        id: request_id(row, 0)?,
        app: value(row, 1)?,
        path: value(row, 2)?,
        priority: priority(row, 3)?,
        submitted_at: timestamp(row, 4)?,
        start_deadline: optional_timestamp(row, 5)?,
        no_retry: value(row, 6)?,
        retry_config: value(row, 7)?,
        hint: value(row, 8)?,
        caller: value(row, 9)?,
        attempts: 0,
    })
}

pub(super) async fn ahead(db: &Db, id: &RequestId) -> Result<usize, Failure> {
    match row(db, AHEAD, &[&uuid(*id)]).await? {
        Some(row) => count(&row, 0),
        None => Ok(0),
    }
}

/// Whether requests wait for another owner, or webhooks for another node.
pub(super) async fn are_there_orphans(db: &Db, me: u32) -> Result<bool, Failure> {
    let webhooks = webhooks::SELECT_ORPHANS;
    let sql = format!("{DEAD} SELECT owner FROM dead UNION ALL ({webhooks}) LIMIT 1");
    Ok(row(db, &sql, &[&boot_number(me)]).await?.is_some())
}

pub(super) async fn adopt(
    group: &Group<'_>,
    (me, limit): &(u32, usize),
) -> Result<Vec<QueuedHead>, Failure> {
    let sql = format!("{DEAD}{ADOPT}");
    let taken = rows(group.db, &sql, &[&boot_number(*me), &number(*limit)]).await?;
    webhooks::take_back(group, *me).await?;
    for row in &taken {
        // The owner before did not live to do it.
        if value(row, 10)? {
            group.notices.add(Notice::Cancel { owner: *me, id: request_id(row, 0)? });
        }
    }
    let with_attempts = |row| Ok(QueuedHead { attempts: count(row, 11)?, ..head(row)? });
    taken.iter().map(with_attempts).collect()
}

pub(super) async fn started(
    group: &Group<'_>,
    (id, attempt, me): &(RequestId, u32, u32),
) -> Result<(), Failure> {
    run(group.db, STARTED, &[&uuid(*id), &boot_number(*me), &number(*attempt)]).await?;
    Ok(())
}

pub(super) async fn ask_cancel(group: &Group<'_>, id: &RequestId) -> Result<(), Failure> {
    if let Some(row) = row(group.db, ASK_CANCEL, &[&uuid(*id)]).await? {
        group.notices.add(Notice::Cancel { owner: boot(&row, 0)?, id: *id });
    }
    Ok(())
}

/// What a node that did not hear everything must still cancel.
pub(super) async fn asked_cancels(db: &Db, me: u32) -> Result<Vec<RequestId>, Failure> {
    let found = rows(db, SELECT_CANCELS, &[&boot_number(me)]).await?;
    found.iter().map(|row| request_id(row, 0)).collect()
}
