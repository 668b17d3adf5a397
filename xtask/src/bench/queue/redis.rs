//! Redis that syncs its file before it answers.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::PAYLOAD_BYTES;
use crate::bench::peer::Peer;
use crate::bench::start_overhead::free_port;
use crate::command::Running;
use crate::stopwatch::{self, Stopwatch};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);
/// Pushes of one run of its own benchmark, which knows counts and no times.
const PUSHES: u32 = 50_000;

#[derive(Debug)]
pub(super) struct Redis {
    running: Running,
    pub(super) port: u16,
    server: Peer,
    benchmark: Peer,
    cli: Peer,
}

impl Redis {
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let server = Peer::find("redis-server", "redis-server", "usr/bin/redis-server")?;
        let benchmark = Peer::find("redis-benchmark", "redis-tools", "usr/bin/redis-benchmark")?;
        let cli = Peer::find("redis-cli", "redis-tools", "usr/bin/redis-cli")?;
        let home = folder.join("redis");
        fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
        let port = free_port()?;
        let running = server
            .program()
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
            .arg(&home)
            .spawn(&folder.join("redis.log"))?;
        let started = Self { running, port, server, benchmark, cli };
        let ready = stopwatch::wait_for(START_TIMEOUT, PAUSE, || {
            started.running.check()?;
            Ok(started.say(&["PING"]).ok())
        })?;
        ready.context("Redis does not answer")?;
        Ok(started)
    }

    /// Pushes per second, each on the disk when it is answered.
    pub(super) fn pushes(&self, callers: u32, seconds: u32) -> Result<f64> {
        self.say(&["FLUSHALL"])?;
        let watch = Stopwatch::start();
        let mut rates = Vec::new();
        while watch.elapsed() < Duration::from_secs(u64::from(seconds)) {
            let said = self
                .benchmark
                .program()
                .args(["-p", &self.port.to_string(), "-c", &callers.to_string()])
                .args(["-n", &PUSHES.to_string(), "-d", &PAYLOAD_BYTES.to_string()])
                .args(["-t", "rpush", "--csv"])
                .capture()?;
            rates.push(rate(&said).with_context(|| format!("cannot read:\n{said}"))?);
        }
        Ok(crate::bench::median(&rates))
    }

    pub(super) fn version(&self) -> Result<(String, String)> {
        let said = self.server.program().arg("--version").capture()?;
        let version = said.split(' ').find_map(|word| word.strip_prefix("v="));
        Ok(("Redis".to_owned(), version.unwrap_or_default().to_owned()))
    }

    fn say(&self, command: &[&str]) -> Result<String> {
        self.cli.program().args(["-p", &self.port.to_string()]).args(command).capture()
    }
}

/// The second field of the line of the test.
fn rate(said: &str) -> Option<f64> {
    let line = said.lines().find(|line| line.starts_with("\"RPUSH\""))?;
    line.split(',').nth(1)?.trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_second_field() {
        let said = "\"test\",\"rps\",\"avg_latency_ms\"\n\"RPUSH\",\"31446.54\",\"1.2\"\n";
        assert_eq!(rate(said), Some(31446.54));
        assert_eq!(rate("Could not connect"), None);
    }
}
