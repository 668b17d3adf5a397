//! How a store is opened.

use std::fmt;
use std::time::Duration;

use crate::limits::Bounds;

/// How long a node that does not renew its lease is still taken for alive.
const LEASE: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections for reads.
const READERS: usize = 8;
/// Connections for writes: while one waits for the disk the other gathers.
const WRITERS: usize = 2;

#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=...`
    pub url: String,
    /// Nodes that name the same schema of the same database share a queue.
    pub schema: String,
    /// How long a node that does not renew its lease is still taken for alive.
    pub lease: Duration,
    pub bounds: Bounds,
    /// Connections for reads.
    pub readers: usize,
    /// Connections for writes.
    pub writers: usize,
    /// How long to wait for a new connection.
    pub connect_timeout: Duration,
    /// How long to wait for a free connection, and for an answer.
    pub answer_timeout: Duration,
}

impl PostgresOptions {
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            schema: "glowplug".to_owned(),
            lease: LEASE,
            bounds: Bounds::default(),
            readers: READERS,
            writers: WRITERS,
            connect_timeout: CONNECT_TIMEOUT,
            answer_timeout: ANSWER_TIMEOUT,
        }
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        let fields = (&self.schema, self.lease, self.readers, self.writers);
        f.debug_tuple("PostgresOptions").field(&fields).finish_non_exhaustive()
    }
}
