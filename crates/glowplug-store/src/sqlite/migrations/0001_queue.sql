-- Rows here are written once and deleted once: what changes when a request ends is a row more in
-- `completions` and a row less in `pending`, so that no body is ever rewritten.
-- Bodies are the last columns, so that a read of the others does not walk over them.

CREATE TABLE node (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    boots INTEGER NOT NULL,
    checks INTEGER NOT NULL
) STRICT;
INSERT INTO node VALUES (1, 0, 0);

-- `place` is the place in the order of acceptance.
CREATE TABLE requests (
    place INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    app TEXT NOT NULL,
    path TEXT NOT NULL,
    method TEXT NOT NULL,
    priority INTEGER NOT NULL,
    submitted_at INTEGER NOT NULL,
    start_deadline INTEGER,
    no_retry INTEGER NOT NULL,
    webhook_url TEXT,
    caller TEXT NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;

-- The requests that are not complete.
CREATE TABLE pending (
    place INTEGER PRIMARY KEY
) STRICT;

CREATE TABLE completions (
    place INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    status INTEGER NOT NULL,
    error_message TEXT,
    error_type TEXT,
    inference_seconds REAL,
    attempts INTEGER NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX completions_by_time ON completions (at);

CREATE TABLE request_logs (
    place INTEGER NOT NULL,
    line INTEGER NOT NULL,
    at INTEGER NOT NULL,
    level TEXT NOT NULL,
    source TEXT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (place, line)
) STRICT, WITHOUT ROWID;

-- How many lines of a request were dropped, and when the last of them was written.
CREATE TABLE request_logs_dropped (
    place INTEGER PRIMARY KEY,
    lines INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;
