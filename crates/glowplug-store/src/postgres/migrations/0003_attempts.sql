-- Attempts that were written down when they began.
ALTER TABLE pending ADD COLUMN attempts bigint NOT NULL DEFAULT 0;
