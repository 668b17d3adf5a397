//! wrk, which sends HTTP load, and what it says of it.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::peer::Peer;

#[derive(Clone, Debug)]
pub(super) struct Wrk(Peer);

impl Wrk {
    pub(super) fn find() -> Result<Self> {
        Peer::find("wrk", "wrk", "usr/bin/wrk").map(Self)
    }

    /// Sends load to `url` for some seconds; every answer must be a good one. `script`, in Lua, makes the
    /// requests where plain GETs do not do.
    pub(super) fn load(
        &self,
        url: &str,
        connections: u32,
        seconds: u32,
        script: Option<&Path>,
    ) -> Result<Seen> {
        let connections = connections.to_string();
        let mut wrk = self.0.program().args(["-t", "2", "-c", &connections, "--latency", "-d"]);
        wrk = wrk.arg(format!("{seconds}s"));
        if let Some(script) = script {
            wrk = wrk.arg("-s").arg(script);
        }
        let said = wrk.arg(url).capture()?;
        let seen = parse(&said).with_context(|| format!("cannot read what wrk said:\n{said}"))?;
        if let Some(line) = said.lines().find(|line| line.contains("Non-2xx")) {
            bail!("{url} gave wrong answers: {}", line.trim());
        }
        Ok(seen)
    }
}

/// What wrk says of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) requests: f64,
    pub(super) requests_per_second: f64,
    pub(super) p99_millis: f64,
}

fn parse(said: &str) -> Option<Seen> {
    let after = |mark: &str| said.lines().find_map(|line| line.trim().strip_prefix(mark));
    let requests = said.lines().find_map(|line| line.trim().split_once(" requests in "))?.0;
    Some(Seen {
        requests: requests.parse().ok()?,
        requests_per_second: after("Requests/sec:")?.trim().parse().ok()?,
        p99_millis: parse_millis(after("99%")?.trim())?,
    })
}

fn parse_millis(text: &str) -> Option<f64> {
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("m", 6e4)];
    units.iter().find_map(|(unit, millis)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(number * millis)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_read() {
        let said = "Running 5s test @ http://127.0.0.1:1/\n  2 threads and 64 connections\n  \
                    Latency Distribution\n     50%  593.00us\n     99%    1.16ms\n  \
                    504321 requests in 5.00s, 80.1MB read\nRequests/sec: 100864.20\n";
        let expected =
            Seen { requests: 504_321.0, requests_per_second: 100_864.2, p99_millis: 1.16 };
        assert_eq!(parse(said), Some(expected));
        assert_eq!(parse("unable to connect"), None);
        let check = |text, expected: f64| {
            assert!((parse_millis(text).unwrap() - expected).abs() < 1e-9, "{text}");
        };
        check("593.00us", 0.593);
        check("2.00s", 2_000.0);
    }
}
