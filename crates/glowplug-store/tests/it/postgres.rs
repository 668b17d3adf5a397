//! The store on a PostgreSQL server: the suite that every store passes, and what only several nodes can do.

mod model;
mod nodes;
mod outages;

use std::sync::Arc;
use std::time::Duration;

use glowplug_store::{PostgresOptions, PostgresStore};
use glowplug_testkit::shared_postgres;

use crate::conformance::BOUNDS;

/// Options for a schema that nothing else uses.
pub(crate) fn fresh() -> PostgresOptions {
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    PostgresOptions {
        schema,
        bounds: BOUNDS,
        readers: 2,
        // Never by itself: tests that want a lease to end say so.
        lease: Duration::from_hours(1),
        ..PostgresOptions::new(shared_postgres())
    }
}

pub(crate) async fn open(options: &PostgresOptions) -> Arc<PostgresStore> {
    PostgresStore::connect(options.clone()).await.unwrap()
}

/// A connection beside those of the stores.
pub(crate) async fn bystander(options: &PostgresOptions) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(&options.url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("SET search_path TO {}", options.schema)).await.unwrap();
    client
}

macro_rules! on_a_server {
    ($($subject:ident::$behaviour:ident),+ $(,)?) => {
        mod conformance {
            $(#[tokio::test]
            async fn $behaviour() {
                let store = super::open(&super::fresh()).await;
                crate::conformance::$subject::$behaviour(store).await;
            })+
        }
    };
}
every_behaviour!(on_a_server);
