//! Records to store.

use std::path::Path;
use std::sync::Arc;

use glowplug_core::{RequestId, Timestamp};
use glowplug_store::{
    Completion, Durability, JournalRecord, KeyRecord, Priority, QueuedRequest, RequestLogLine,
    SqliteOptions, SqliteStore, StoredResponse,
};

/// A store that does not wait for the disk: tests kill processes, not machines.
pub(crate) fn fast() -> SqliteOptions {
    SqliteOptions { durability: Durability::ProcessCrash, ..SqliteOptions::default() }
}

pub(crate) fn sqlite(directory: &Path) -> Arc<SqliteStore> {
    SqliteStore::open(&directory.join("store.db"), fast()).unwrap()
}

pub(crate) fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(secs)
}

pub(crate) fn id(number: u128) -> RequestId {
    RequestId(number)
}

pub(crate) fn request(number: u128) -> QueuedRequest {
    QueuedRequest {
        id: id(number),
        app: "local/ocr".to_owned(),
        path: "read?fast=1".to_owned(),
        method: "POST".to_owned(),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: number.to_le_bytes().to_vec(),
        priority: Priority::Normal,
        submitted_at: at(100),
        start_deadline: None,
        no_retry: false,
        retry_config: None,
        hint: None,
        idempotency_key: None,
        keep_payload: true,
        webhook_url: None,
        caller: String::new(),
    }
}

pub(crate) fn completion(ended_at: Timestamp, body: &[u8]) -> Completion {
    Completion {
        at: ended_at,
        response: StoredResponse { status: 200, headers: Vec::new(), body: body.to_vec() },
        error: None,
        inference_seconds: Some(0.25),
        attempts: 1,
    }
}

pub(crate) fn log_line(secs: u64, message: &str) -> RequestLogLine {
    RequestLogLine {
        at: at(secs),
        level: "INFO".to_owned(),
        source: "run".to_owned(),
        message: message.to_owned(),
    }
}

pub(crate) fn key(key_id: &str, created_at: Timestamp) -> KeyRecord {
    KeyRecord {
        id: key_id.to_owned(),
        secret_sha256: [0xab; 32],
        alias: format!("alias of {key_id}"),
        scope: "ADMIN".to_owned(),
        created_at,
    }
}

pub(crate) fn decision(secs: u64, subjects: &[&str]) -> JournalRecord {
    JournalRecord {
        at: at(secs),
        subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
        sentence: format!("decision {secs}"),
        json: format!(r#"{{"number":{secs}}}"#),
    }
}
