//! Celery and RQ, each with one worker process per core and Redis for jobs and results.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::command::Program;
use crate::repository;
use crate::tools;

const REQUIREMENTS: &str = "xtask/bench/requirements.txt";
const SCRIPT: &str = "xtask/bench/jobs.py";

#[derive(Debug)]
pub(super) struct Python {
    python: PathBuf,
    redis: String,
}

/// What the script says of a run.
#[derive(Debug, Deserialize)]
struct Said {
    jobs_per_second: f64,
}

impl Python {
    pub(super) fn set_up(redis_port: u16) -> Result<Self> {
        let python = tools::python_with(REQUIREMENTS)?;
        Ok(Self { python, redis: format!("redis://127.0.0.1:{redis_port}/0") })
    }

    /// Jobs per second from the first submit until the result of the last is there.
    pub(super) fn jobs(&self, system: &str) -> Result<f64> {
        let said = self.script().arg(system).capture()?;
        let last = said.lines().last().unwrap_or_default();
        let said: Said = serde_json::from_str(last)
            .with_context(|| format!("cannot read what {SCRIPT} said: {said}"))?;
        Ok(said.jobs_per_second)
    }

    pub(super) fn versions(&self) -> Result<Vec<(String, String)>> {
        let said = self.script().arg("versions").capture()?;
        let pairs = said.lines().filter_map(|line| line.split_once(' '));
        Ok(pairs.map(|(name, version)| (name.to_owned(), version.to_owned())).collect())
    }

    fn script(&self) -> Program {
        let script = repository::root().join(SCRIPT);
        let folder = script.parent().map(PathBuf::from).unwrap_or_default();
        Program::new(&self.python).arg(script).env("JOBS_REDIS", &self.redis).dir(folder)
    }
}
