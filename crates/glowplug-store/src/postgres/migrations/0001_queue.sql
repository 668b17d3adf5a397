-- What changes when a request ends is a row more in `completions` and a row less in `pending`, so that
-- no body is rewritten, and the rows that nodes compete for are few and small.
-- Places are given out when a row is written, and a row may be seen later than one with a higher place
-- that was written at the same moment. What was acknowledged before is always lower.

CREATE SEQUENCE boots AS integer;

-- The nodes that live, by the clock of this server.
CREATE TABLE nodes (
    boot integer PRIMARY KEY,
    lease_until timestamptz NOT NULL
);

CREATE TABLE requests (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL UNIQUE,
    app text NOT NULL,
    path text NOT NULL,
    method text NOT NULL,
    priority smallint NOT NULL,
    submitted_at bigint NOT NULL,
    start_deadline bigint,
    no_retry boolean NOT NULL,
    retry_config text,
    hint text,
    webhook_url text,
    idempotency_key text,
    -- Tells whether two requests with one idempotency key are the same; the body may be dropped.
    fingerprint bytea,
    keep_payload boolean NOT NULL,
    caller text NOT NULL,
    headers text NOT NULL,
    body bytea NOT NULL
);
CREATE UNIQUE INDEX requests_by_key ON requests (caller, app, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
-- Bodies are pictures and sound more often than text: compressing them again is in vain.
ALTER TABLE requests ALTER COLUMN body SET STORAGE EXTERNAL;

-- The requests that are not complete. Rows come and go all the time, so they are swept early.
CREATE TABLE pending (
    place bigint PRIMARY KEY,
    app text NOT NULL,
    owner integer NOT NULL,
    started boolean NOT NULL DEFAULT false,
    cancel_asked boolean NOT NULL DEFAULT false
) WITH (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.05
);
CREATE INDEX pending_by_owner ON pending (owner, place);
CREATE INDEX pending_by_app ON pending (app, place);
CREATE INDEX pending_cancels ON pending (owner) WHERE cancel_asked;

CREATE TABLE completions (
    place bigint PRIMARY KEY,
    at bigint NOT NULL,
    owner integer NOT NULL,
    started boolean NOT NULL,
    status integer NOT NULL,
    error_message text,
    error_type text,
    inference_seconds double precision,
    attempts bigint NOT NULL,
    -- Of the payload, if it is kept, and the answer.
    bytes bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    headers text NOT NULL,
    body bytea NOT NULL
);
ALTER TABLE completions ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX completions_by_time ON completions (at, place) INCLUDE (bytes);
-- For a node that did not hear of anything for a while: the table is in this order by itself.
CREATE INDEX completions_by_recording ON completions USING brin (recorded_at);

CREATE TABLE request_logs (
    place bigint NOT NULL,
    line bigint NOT NULL,
    at bigint NOT NULL,
    level text NOT NULL,
    source text NOT NULL,
    message text NOT NULL,
    PRIMARY KEY (place, line)
);
-- How many lines a request ever had, those that were dropped included, and when the last was written.
CREATE TABLE request_log_totals (
    place bigint PRIMARY KEY,
    lines bigint NOT NULL,
    at bigint NOT NULL
);

-- The webhooks of complete requests.
CREATE TABLE deliveries (
    place bigint PRIMARY KEY,
    -- 0: due at `due_at`; 1: delivered; 2: failed.
    state smallint NOT NULL,
    due_at bigint NOT NULL,
    attempts bigint NOT NULL DEFAULT 0,
    -- The node that has it and has not told of the call.
    given_to integer
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX deliveries_due ON deliveries (due_at, place) WHERE state = 0;
CREATE INDEX deliveries_given ON deliveries (given_to) WHERE given_to IS NOT NULL;

CREATE TABLE delivery_attempts (
    place bigint NOT NULL,
    number bigint NOT NULL,
    at bigint NOT NULL,
    took_micros bigint NOT NULL,
    status integer,
    problem text,
    PRIMARY KEY (place, number)
);
