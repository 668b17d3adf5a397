//! What fal's clients and apps may count on, row by row: each table here is one of fal's, and each row of it
//! names the row. A real node, a real app, plain HTTP.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod cancelling;
mod errors;
mod eta;
mod ground;
mod headers;
mod hints;
mod outcomes;
mod queue_api;
mod retries;
mod storing;
mod webhooks;
