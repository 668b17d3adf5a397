//! PostgreSQL with its own defaults for durability: `fsync` and `synchronous_commit` on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::PAYLOAD_BYTES;
use crate::bench::peer::Peer;
use crate::bench::start_overhead::free_port;
use crate::command::{Program, Running};
use crate::stopwatch;

const START_TIMEOUT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);
const PACKAGE: &str = "postgresql";
/// Whom the server runs as, since it refuses root: nobody and nogroup.
const USER: &str = "65534";

#[derive(Debug)]
pub(super) struct Postgres {
    running: Running,
    port: String,
    pgbench: Peer,
    psql: Peer,
    insert: PathBuf,
}

impl Postgres {
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let find =
            |tool: &str| Peer::find(tool, PACKAGE, &format!("usr/lib/postgresql/*/bin/{tool}"));
        let (initdb, server, pgbench, psql) =
            (find("initdb")?, find("postgres")?, find("pgbench")?, find("psql")?);
        let home = folder.join("postgres");
        fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
        let as_root = rustix::process::geteuid().is_root();
        if as_root {
            Program::new("chown").arg(format!("{USER}:{USER}")).arg(&home).run()?;
        }
        let data = home.join("data");
        let args = ["--username=bench", "--auth=trust", "--no-sync", "-D"];
        unprivileged(&initdb, as_root).args(args).arg(&data).dir(&home).capture()?;
        let port = free_port()?.to_string();
        let running = unprivileged(&server, as_root)
            .arg("-D")
            .arg(&data)
            .args(["-p", &port, "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=600"])
            .arg("-c")
            .arg("unix_socket_directories=")
            .dir(&home)
            .spawn(&folder.join("postgres.log"))?;
        let insert = folder.join("insert.sql");
        let text =
            format!("INSERT INTO jobs (payload) VALUES ('{}');\n", "x".repeat(PAYLOAD_BYTES));
        fs::write(&insert, text).with_context(|| format!("cannot write {}", insert.display()))?;
        let started = Self { running, port, pgbench, psql, insert };
        let ready = stopwatch::wait_for(START_TIMEOUT, PAUSE, || {
            started.running.check()?;
            Ok(started.sql("SELECT 1").ok())
        })?;
        ready.context("PostgreSQL does not answer")?;
        started.sql("CREATE TABLE jobs (id bigserial PRIMARY KEY, payload text NOT NULL)")?;
        Ok(started)
    }

    /// Rows per second, each in a transaction of its own that is on the disk when it is answered.
    pub(super) fn inserts(&self, callers: u32, seconds: u32) -> Result<f64> {
        self.sql("TRUNCATE jobs")?;
        let said = self
            .client(&self.pgbench)
            .args(["--no-vacuum", "-M", "prepared", "-j", "2", "-c", &callers.to_string()])
            .args(["-T", &seconds.to_string(), "-f"])
            .arg(&self.insert)
            .arg("postgres")
            .capture()?;
        let line = said.lines().find_map(|line| line.strip_prefix("tps = "));
        line.and_then(|rest| rest.split(' ').next()?.parse().ok())
            .with_context(|| format!("cannot read what pgbench said:\n{said}"))
    }

    /// The URL of a database in which no node has kept anything yet.
    pub(super) fn empty_store(&self) -> Result<String> {
        self.sql("DROP SCHEMA IF EXISTS glowplug CASCADE")?;
        Ok(format!("postgres://bench@127.0.0.1:{}/postgres?sslmode=disable", self.port))
    }

    pub(super) fn version(&self) -> Result<(String, String)> {
        Ok(("PostgreSQL".to_owned(), self.sql("SHOW server_version")?.trim().to_owned()))
    }

    fn sql(&self, statement: &str) -> Result<String> {
        self.client(&self.psql).args(["-At", "-c", statement, "postgres"]).capture()
    }

    fn client(&self, tool: &Peer) -> Program {
        tool.program().args(["-h", "127.0.0.1", "-p", &self.port, "-U", "bench"])
    }
}

fn unprivileged(tool: &Peer, as_root: bool) -> Program {
    if !as_root {
        return tool.program();
    }
    let setpriv =
        Program::new("setpriv").args(["--reuid", USER, "--regid", USER, "--clear-groups"]);
    tool.with_libraries(setpriv.arg(&tool.path))
}
