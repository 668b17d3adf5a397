-- Requests and answers are moved to tables with more columns, in which bodies are still the last.
-- A body is in its row, or in the file that `body_file` names (then `body` is empty). `body_hash` is its
-- BLAKE3 checksum: of every body in a file, and of every payload that has an idempotency key. It stays
-- when a payload is dropped.

CREATE TABLE new_requests (
    place INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    app TEXT NOT NULL,
    path TEXT NOT NULL,
    method TEXT NOT NULL,
    priority INTEGER NOT NULL,
    submitted_at INTEGER NOT NULL,
    start_deadline INTEGER,
    no_retry INTEGER NOT NULL,
    retry_config TEXT,
    hint TEXT,
    webhook_url TEXT,
    idempotency_key TEXT,
    keep_payload INTEGER NOT NULL,
    caller TEXT NOT NULL,
    headers TEXT NOT NULL,
    body_bytes INTEGER NOT NULL,
    body_hash BLOB,
    body_file TEXT,
    body BLOB NOT NULL
) STRICT;
INSERT INTO new_requests
    SELECT place, id, app, path, method, priority, submitted_at, start_deadline, no_retry, NULL, NULL,
        webhook_url, NULL, 1, caller, headers, length(body), NULL, NULL, body
    FROM requests ORDER BY place;
DROP TABLE requests;
ALTER TABLE new_requests RENAME TO requests;
CREATE UNIQUE INDEX requests_by_key ON requests (caller, app, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- `owner` is the start of the node that runs the request; 0 is none.
CREATE TABLE new_pending (
    place INTEGER PRIMARY KEY,
    owner INTEGER NOT NULL
) STRICT;
INSERT INTO new_pending SELECT place, 0 FROM pending ORDER BY place;
DROP TABLE pending;
ALTER TABLE new_pending RENAME TO pending;

-- `kept_bytes` is what the payload and the answer count towards the limit of what is kept.
CREATE TABLE new_completions (
    place INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    status INTEGER NOT NULL,
    error_message TEXT,
    error_type TEXT,
    inference_seconds REAL,
    attempts INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    kept_bytes INTEGER NOT NULL,
    headers TEXT NOT NULL,
    body_bytes INTEGER NOT NULL,
    body_hash BLOB,
    body_file TEXT,
    body BLOB NOT NULL
) STRICT;
INSERT INTO new_completions
    SELECT place, at, status, error_message, error_type, inference_seconds, attempts, 0,
        length(completions.body) + body_bytes, completions.headers, length(completions.body), NULL, NULL,
        completions.body
    FROM completions JOIN requests USING (place) ORDER BY place;
DROP TABLE completions;
ALTER TABLE new_completions RENAME TO completions;
CREATE INDEX completions_by_time ON completions (at);

-- Running totals over `completions`, so that nothing is counted to find out what is beyond a limit.
ALTER TABLE node ADD COLUMN complete_requests INTEGER NOT NULL DEFAULT 0;
ALTER TABLE node ADD COLUMN complete_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE node SET (complete_requests, complete_bytes) =
    (SELECT count(*), coalesce(sum(kept_bytes), 0) FROM completions);

-- A row from the moment its request is complete. `due_at` is empty when no further call is made, and is
-- in the future while a call is under way. `state`: 0 due, 1 delivered, 2 failed, 3 under way.
CREATE TABLE deliveries (
    place INTEGER PRIMARY KEY,
    state INTEGER NOT NULL,
    due_at INTEGER,
    calls INTEGER NOT NULL
) STRICT;
CREATE INDEX deliveries_by_time ON deliveries (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE delivery_calls (
    place INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    took_micros INTEGER NOT NULL,
    status INTEGER,
    problem TEXT,
    PRIMARY KEY (place, number)
) STRICT, WITHOUT ROWID;
