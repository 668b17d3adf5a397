-- Attempts that were written down before they began: not the first of a request that its node accepted,
-- which would cost every request a write, but all further ones, and all after the request was taken over.
ALTER TABLE pending ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
