//! Opens the store that the config names.

use std::sync::Arc;

use anyhow::Context;
use glowplug_store::{
    MemoryStore, PostgresOptions, PostgresStore, SqliteOptions, SqliteStore, Store,
};

use crate::config::Config;

/// The database in the data directory.
pub(crate) const FILE_NAME: &str = "glowplug.db";

pub(crate) async fn open(config: &Config, ephemeral: bool) -> anyhow::Result<Arc<dyn Store>> {
    if ephemeral {
        return Ok(Arc::new(MemoryStore::default()));
    }
    let wanted = &config.node.store;
    if let Some(url) = &wanted.postgres {
        let schema = wanted.schema.clone();
        let lease = wanted.lease;
        let options = PostgresOptions { schema, lease, ..PostgresOptions::new(url.expose()) };
        let opened = PostgresStore::connect(options).await;
        return Ok(opened.with_context(|| format!("cannot use the queue at {url}"))?);
    }
    let path = config.node.data_dir.join(FILE_NAME);
    let queue = &config.node.queue;
    let options = SqliteOptions {
        inline_bytes_max: usize::try_from(queue.inline_bytes_max).unwrap_or(usize::MAX),
        disk_reserve_bytes: queue.disk_reserve_bytes,
        ..SqliteOptions::default()
    };
    Ok(SqliteStore::open(&path, options)?)
}
