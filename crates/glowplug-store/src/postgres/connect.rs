//! Where the server is, and connections to it.

use std::time::Duration;

use deadpool_postgres::{Hook, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::PostgresOptions;
use super::failure::{Failure, Fault, Kind};
use super::tls::{self, Trust};

/// How often a quiet connection is asked whether its server still lives.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// How long sent bytes may stay unconfirmed before the connection counts as broken.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);
/// PostgreSQL cuts longer names.
const SCHEMA_NAME_BYTES_MAX: usize = 63;

/// Everything needed to connect again.
#[derive(Clone)]
pub(super) struct Server {
    config: Config,
    tls: MakeRustlsConnect,
    connect_timeout: Duration,
    /// Host and database for messages, never the password.
    pub(super) place: String,
    pub(super) schema: String,
}

impl Server {
    /// Says what is wrong with the options, for people.
    pub(super) fn new(options: &PostgresOptions) -> Result<Self, String> {
        check_schema_name(&options.schema)?;
        let (url, trust) = take_tls_options(&options.url)?;
        let mut config: Config = url.parse().map_err(|error| {
            format!("the URL of the database is not valid ({error}); write postgres://USER@HOST/DATABASE")
        })?;
        if trust != Trust::Anybody {
            config.ssl_mode(SslMode::Require);
        }
        configure(&mut config, options);
        let tls = tls::connector(&trust)?;
        let (connect_timeout, schema) = (options.connect_timeout, options.schema.clone());
        Ok(Self { place: place(&config), config, tls, connect_timeout, schema })
    }

    /// A connection of its own, with all that it says besides answers.
    pub(super) async fn connect(
        &self,
    ) -> Result<
        (
            Client,
            tokio_postgres::Connection<
                tokio_postgres::Socket,
                <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<
                    tokio_postgres::Socket,
                >>::Stream,
            >,
        ),
        Fault,
    > {
        let connecting = self.config.connect(self.tls.clone());
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(Fault::new(
                Kind::Away,
                format!("the server did not accept a connection within {:?}", self.connect_timeout),
            )),
        }
    }

    /// Connections that are opened when they are needed and replaced when they break.
    /// Statements of `hot` are prepared on each before it is used.
    pub(super) fn pool(
        &self,
        connections: usize,
        wait: Duration,
        hot: &'static [&'static str],
    ) -> Result<Pool, Failure> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(self.config.clone(), self.tls.clone(), recycling);
        Pool::builder(manager)
            .max_size(connections.max(1))
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(wait))
            .create_timeout(Some(self.connect_timeout))
            .recycle_timeout(Some(self.connect_timeout))
            .post_create(Hook::async_fn(move |db, _| {
                Box::pin(async move {
                    // Else each write of the first group would have the same statement prepared.
                    for sql in hot {
                        db.prepare_cached(sql)
                            .await
                            .map_err(deadpool_postgres::HookError::Backend)?;
                    }
                    Ok(())
                })
            }))
            .build()
            .map_err(|error| Fault::new(Kind::Away, error.to_string()).into())
    }
}

fn check_schema_name(schema: &str) -> Result<(), String> {
    let starts_well = schema.starts_with(|c: char| c.is_ascii_lowercase());
    let is_plain = schema.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if starts_well
        && is_plain
        && schema.len() <= SCHEMA_NAME_BYTES_MAX
        && !schema.starts_with("pg_")
    {
        return Ok(());
    }
    Err(format!(
        "`{schema}` cannot be the name of the schema; use lowercase letters, digits and underscores, \
         at most {SCHEMA_NAME_BYTES_MAX}, not beginning with `pg_`"
    ))
}

/// Settings of each session that the store relies on, whatever the server or the role has set.
fn configure(config: &mut Config, options: &PostgresOptions) {
    let settings = format!(
        "-c search_path={schema} -c synchronous_commit=on \
         -c default_transaction_isolation=read\\ committed -c statement_timeout={timeout} \
         -c idle_in_transaction_session_timeout={timeout}",
        schema = options.schema,
        timeout = options.answer_timeout.as_millis(),
    );
    let settings = match config.get_options() {
        Some(asked) => format!("{asked} {settings}"),
        None => settings,
    };
    config.options(settings);
    if config.get_application_name().is_none() {
        config.application_name("glowplug");
    }
    config
        .connect_timeout(options.connect_timeout)
        .tcp_user_timeout(TCP_USER_TIMEOUT)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES);
}

/// Takes what the client library does not know out of the URL's query.
fn take_tls_options(url: &str) -> Result<(String, Trust), String> {
    let Some((address, query)) = url.split_once('?') else {
        return Ok((url.to_owned(), Trust::Anybody));
    };
    let (mut kept, mut file, mut is_checked) = (Vec::new(), None, false);
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslrootcert", path)) if path != "system" => file = Some(path.into()),
            Some(("sslrootcert", _) | ("sslmode", "verify-full")) => is_checked = true,
            Some(("sslmode", "verify-ca")) => {
                return Err("sslmode=verify-ca is not supported; use verify-full".to_owned());
            }
            _ => kept.push(pair),
        }
    }
    let trust = match file {
        Some(path) => Trust::File(path),
        None if is_checked => Trust::System,
        None => Trust::Anybody,
    };
    let url =
        if kept.is_empty() { address.to_owned() } else { format!("{address}?{}", kept.join("&")) };
    Ok((url, trust))
}

fn place(config: &Config) -> String {
    let ports = config.get_ports();
    let hosts: Vec<_> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(nth, host)| {
            let port = ports.get(nth).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(path) => format!("{} (port {port})", path.display()),
            }
        })
        .collect();
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("the PostgreSQL database `{database}` at {}", hosts.join(", "))
}
