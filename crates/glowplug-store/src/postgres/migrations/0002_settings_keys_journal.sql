CREATE TABLE settings (
    app text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    json text NOT NULL,
    PRIMARY KEY (app, key)
);

CREATE TABLE keys (
    id text COLLATE "C" PRIMARY KEY,
    secret_sha256 bytea NOT NULL CHECK (octet_length(secret_sha256) = 32),
    alias text NOT NULL,
    scope text NOT NULL,
    created_at bigint NOT NULL
);

CREATE TABLE journal (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at bigint NOT NULL,
    subjects text[] NOT NULL,
    sentence text NOT NULL,
    json text NOT NULL
);
CREATE TABLE journal_subjects (
    subject text COLLATE "C" NOT NULL,
    place bigint NOT NULL,
    PRIMARY KEY (subject, place)
);

-- Each node writes a row of its own to prove that it can.
CREATE TABLE checks (
    node uuid PRIMARY KEY,
    number bigint NOT NULL,
    at timestamptz NOT NULL
);
