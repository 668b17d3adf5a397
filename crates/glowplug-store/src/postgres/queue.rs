//! Accepting requests and recording their answers in SQL.

use glowplug_core::RequestId;

use super::columns::{
    Params, boot_number, json_text, micros, number, priority_number, request_id, row, text, uuid,
    value,
};
use super::failure::{Failure, Fault, Kind};
use super::notices::Notice;
use super::writer::Group;
use crate::records::{Accepted, Completed, Completion, QueuedRequest};
use crate::store::{StoreError, check_body, check_request};

macro_rules! add_request {
    () => {
        "INSERT INTO requests (id, app, path, method, priority, submitted_at, start_deadline, \
         no_retry, retry_config, hint, webhook_url, idempotency_key, fingerprint, keep_payload, \
         caller, headers, body) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) \
         ON CONFLICT DO NOTHING RETURNING place, app"
    };
}
const ADD_REQUEST: &str = add_request!();
/// Both tables in one statement, so that a group of submits is one burst on the wire.
const SUBMIT: &str = concat!(
    "WITH added AS (",
    add_request!(),
    ") INSERT INTO pending (place, app, owner) SELECT place, app, $18::integer FROM added \
     RETURNING place"
);
pub(super) const SELECT_EARLIER: &str = "SELECT id, fingerprint = $3 FROM requests \
     WHERE caller = $1 AND app = $4 AND idempotency_key = $2";
const SELECT_ID: &str = "SELECT place FROM requests WHERE id = $1";

/// Nothing is changed unless the row in `pending` is there and ours to delete: whoever deletes it has
/// completed the request.
const COMPLETE: &str = "WITH ended AS ( \
     DELETE FROM pending USING requests \
     WHERE requests.id = $1 AND pending.place = requests.place AND pending.owner = $2 \
     RETURNING pending.place, pending.started, requests.webhook_url, requests.keep_payload, \
     octet_length(requests.body) AS payload_bytes), \
     dropped AS (UPDATE requests SET body = '' FROM ended \
     WHERE requests.place = ended.place AND NOT ended.keep_payload), \
     due AS (INSERT INTO deliveries (place, state, due_at) \
     SELECT place, 0, $3 FROM ended WHERE webhook_url IS NOT NULL) \
     INSERT INTO completions (place, at, owner, started, status, error_message, error_type, \
     inference_seconds, attempts, bytes, headers, body) \
     SELECT place, $3, $2, started, $4, $5, $6, $7, $8, \
     octet_length($10::bytea) + CASE WHEN keep_payload THEN payload_bytes ELSE 0 END, $9, $10 \
     FROM ended RETURNING place";
const SELECT_STATE: &str = "SELECT completions.place IS NOT NULL \
     FROM requests LEFT JOIN completions USING (place) WHERE id = $1";

/// What every connection that writes must know well.
pub(super) const HOT: &[&str] = &[SUBMIT, COMPLETE];

/// Two requests with one idempotency key are the same if these are.
pub(super) fn fingerprint(request: &QueuedRequest) -> Option<Vec<u8>> {
    request.idempotency_key.as_ref()?;
    let mut hasher = blake3::Hasher::new();
    for part in [&request.method, &request.path] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    Some(hasher.update(&request.body).finalize().as_bytes().to_vec())
}

/// The owner is the boot of this node.
pub(super) async fn submit(
    group: &Group<'_>,
    (request, owner): &(QueuedRequest, u32),
) -> Result<Accepted, Failure> {
    check_request(request)?;
    match add(group, request, Some(boot_number(*owner))).await? {
        Some(_) => Ok(Accepted::New),
        None => why_not_added(group, request).await,
    }
}

/// Adds the request alone and returns its place, or nothing if its id or key is taken.
pub(super) async fn add_request(
    group: &Group<'_>,
    request: &QueuedRequest,
) -> Result<Option<i64>, Failure> {
    add(group, request, None).await
}

/// With an owner, the request is put in line as well.
async fn add(
    group: &Group<'_>,
    request: &QueuedRequest,
    owner: Option<i32>,
) -> Result<Option<i64>, Failure> {
    let (fingerprint, headers) = (fingerprint(request), json_text(&request.headers)?);
    let params: Params<'_> = &[
        &uuid(request.id),
        &request.app,
        &request.path,
        &request.method,
        &priority_number(request.priority),
        &micros(request.submitted_at),
        &request.start_deadline.map(micros),
        &request.no_retry,
        &request.retry_config,
        &request.hint,
        &request.webhook_url,
        &request.idempotency_key,
        &fingerprint,
        &request.keep_payload,
        &request.caller,
        &headers,
        &request.body,
        &owner,
    ];
    let added = match owner {
        Some(_) => row(group.db, SUBMIT, params).await?,
        None => row(group.db, ADD_REQUEST, &params[..params.len() - 1]).await?,
    };
    added.map(|row| value(&row, 0)).transpose()
}

async fn why_not_added(group: &Group<'_>, request: &QueuedRequest) -> Result<Accepted, Failure> {
    let fingerprint = fingerprint(request);
    if let Some(key) = &request.idempotency_key {
        let params: Params<'_> = &[&request.caller, key, &fingerprint, &request.app];
        let found = row(group.db, SELECT_EARLIER, params).await?;
        if let Some(found) = found {
            let earlier = request_id(&found, 0)?;
            return match value::<Option<bool>>(&found, 1)? {
                Some(true) => Ok(Accepted::Before(earlier)),
                _ => Err(StoreError::KeyReused { earlier }.into()),
            };
        }
    }
    match row(group.db, SELECT_ID, &[&uuid(request.id)]).await? {
        Some(_) => Err(StoreError::Duplicate(request.id).into()),
        // What was in the way has been purged since.
        None => Err(Fault::new(Kind::Collided, "an old request was purged meanwhile").into()),
    }
}

pub(super) async fn complete(
    group: &Group<'_>,
    (id, completion, owner): &(RequestId, Completion, u32),
) -> Result<Completed, Failure> {
    let (body, headers) = (&completion.response.body, json_text(&completion.response.headers)?);
    check_body("response body", body)?;
    let (message, kind) =
        completion.error.as_ref().map(|(message, kind)| (text(message), text(kind))).unzip();
    let recorded = row(
        group.db,
        COMPLETE,
        &[
            &uuid(*id),
            &boot_number(*owner),
            &micros(completion.at),
            &i32::from(completion.response.status),
            &message,
            &kind,
            &completion.inference_seconds,
            &number(completion.attempts),
            &headers,
            body,
        ],
    )
    .await?;
    if recorded.is_some() {
        group.notices.add(Notice::Completed(*id));
        return Ok(Completed::Recorded);
    }
    // A new statement sees what the racer that was faster has committed.
    match row(group.db, SELECT_STATE, &[&uuid(*id)]).await? {
        None => Ok(Completed::UnknownRequest),
        Some(found) if value(&found, 0)? => Ok(Completed::AlreadyComplete),
        Some(_) => Ok(Completed::Fenced),
    }
}
