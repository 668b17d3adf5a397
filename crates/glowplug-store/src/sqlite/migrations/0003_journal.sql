-- Places count up without gaps and only the lowest are deleted, so the highest place says how many
-- records there are to trim without counting them.
CREATE TABLE journal (
    place INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    subjects TEXT NOT NULL,
    sentence TEXT NOT NULL,
    json TEXT NOT NULL
) STRICT;

CREATE TABLE journal_subjects (
    subject TEXT NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (subject, place)
) STRICT, WITHOUT ROWID;
