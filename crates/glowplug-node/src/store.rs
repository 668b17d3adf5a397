//! Opens the store that the config names, or looks at it from outside.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use glowplug_store::{
    MemoryStore, PostgresOptions, PostgresStore, SqliteOptions, SqliteStore, Store, StoreError,
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

/// What `glowplug doctor` says of a store that no node has open.
#[derive(Debug)]
pub struct Look {
    /// Where the queue is, for people.
    pub place: String,
    /// Why no node could open it.
    pub problem: Option<StoreError>,
    /// `None`: the queue is not on a disk of this machine.
    pub room: Option<Room>,
}

#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub free_bytes: u64,
    /// Kept for the answers to what was accepted.
    pub reserve_bytes: u64,
}

/// Looks without changing anything. A database server is not asked.
pub fn look(config: &Config) -> Look {
    if let Some(url) = &config.node.store.postgres {
        return Look { place: url.to_string(), problem: None, room: None };
    }
    let path = config.node.data_dir.join(FILE_NAME);
    let existing = path.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let reserve_bytes = config.node.queue.disk_reserve_bytes;
    let room = glowplug_store::free_bytes(existing).ok();
    Look {
        place: path.display().to_string(),
        problem: SqliteStore::inspect(&path).err(),
        room: room.map(|free_bytes| Room { free_bytes, reserve_bytes }),
    }
}
