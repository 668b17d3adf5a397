//! The durable queue beside what people use for one.
//!
//! Submits: HTTP callers that each wait until their request is on the disk, beside clients of PostgreSQL that
//! insert a row of the same size and commit, and clients of Redis that push with `appendfsync always`. Every
//! one of them syncs before it answers. Jobs: from the first submit until the last of many no-op jobs is
//! done, beside Celery and RQ on such a Redis.
//!
//! Everything runs on the same cores and the same disk, the load included, in turn.

mod ours;
mod postgres;
mod python;
mod redis;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Better, Case, Measured, fresh_folder, median};
use crate::stopwatch::Stopwatch;

pub(super) const NAME: &str = "queue";
/// How many callers submit at once.
const CALLERS: [u32; 2] = [64, 512];
const LOAD_SECONDS: u32 = 5;
/// Bytes of a request, of a row and of a list's element.
const PAYLOAD_BYTES: usize = 256;
/// At least what PostgreSQL does beside it.
const SUBMITS_GOAL: f64 = 1.0;
/// Times Celery.
const JOBS_GOAL: f64 = 10.0;
const SYNCS: usize = 500;

/// Who takes submits.
const TAKERS: [&str; 3] = ["glowplug", "PostgreSQL inserts", "Redis appendfsync always"];
/// Who does jobs.
const DOERS: [&str; 4] = ["glowplug", "Celery", "RQ SimpleWorker", "RQ"];

pub(super) fn measure(program: &Path, rounds: usize) -> Result<Measured> {
    let folder = fresh_folder(NAME)?;
    let ours = ours::Ours::find(program)?;
    let postgres = postgres::Postgres::start(&folder)?;
    let redis = redis::Redis::start(&folder)?;
    let python = python::Python::set_up(redis.port)?;
    let mut syncs = Vec::new();
    let mut submits = vec![[const { Vec::new() }; TAKERS.len()]; CALLERS.len()];
    let mut jobs = [const { Vec::new() }; DOERS.len()];
    for round in 1..=rounds {
        syncs.push(sync_micros(&folder)?);
        for (callers, taken) in CALLERS.iter().zip(&mut submits) {
            // Who is first changes, so that none has the quieter disk.
            for turn in 0..TAKERS.len() {
                let taker = (turn + round) % TAKERS.len();
                let per_second = match taker {
                    0 => ours.submits(&folder, *callers, LOAD_SECONDS)?,
                    1 => postgres.inserts(*callers, LOAD_SECONDS)?,
                    _ => redis.pushes(*callers, LOAD_SECONDS)?,
                };
                eprintln!("round {round}: {callers} callers, {}: {per_second:.0}/s", TAKERS[taker]);
                taken[taker].push(per_second);
            }
        }
        for (doer, done) in jobs.iter_mut().enumerate() {
            let per_second = match doer {
                0 => ours.jobs(&folder, LOAD_SECONDS)?,
                1 => python.jobs("celery")?,
                2 => python.jobs("rq-simple")?,
                _ => python.jobs("rq")?,
            };
            eprintln!("round {round}: jobs, {}: {per_second:.0}/s", DOERS[doer]);
            done.push(per_second);
        }
    }
    let versions = [vec![postgres.version()?, redis.version()?], python.versions()?].concat();
    Ok(report(&submits, &jobs, &syncs, versions))
}

fn report(
    submits: &[[Vec<f64>; TAKERS.len()]],
    jobs: &[Vec<f64>; DOERS.len()],
    syncs: &[f64],
    versions: Vec<(String, String)>,
) -> Measured {
    let (mut cases, mut rounds) = (Vec::new(), Vec::new());
    let names = ["durable submits, 64 callers", "durable submits, 512 callers"];
    for (case, taken) in names.into_iter().zip(submits) {
        let goals = [None, Some(SUBMITS_GOAL), None];
        compare(&mut cases, case, TAKERS.iter().zip(taken).zip(goals));
        for (taker, values) in TAKERS.iter().zip(taken) {
            rounds.push((format!("{taker}, {case} (1/s)"), values.clone()));
        }
    }
    let case = "no-op jobs end to end";
    compare(&mut cases, case, DOERS.iter().zip(jobs).zip([None, Some(JOBS_GOAL), None, None]));
    for (doer, values) in DOERS.iter().zip(jobs) {
        rounds.push((format!("{doer}, {case} (1/s)"), values.clone()));
    }
    eprintln!("the disk syncs 4 KiB in {:.0} µs (median)", median(syncs));
    rounds.push(("sync of 4 KiB, p50 (µs)".to_owned(), syncs.to_vec()));
    Measured { cases, rounds, versions }
}

/// The first beside each of the others.
fn compare<'a>(
    cases: &mut Vec<Case>,
    case: &'static str,
    mut all: impl Iterator<Item = ((&'a &'static str, &'a Vec<f64>), Option<f64>)>,
) {
    let Some(((_, ours), _)) = all.next() else { return };
    for ((peer, values), goal) in all {
        let peer = (*peer, median(values));
        cases.push(Case::new((NAME, case), median(ours), peer, "1/s", Better::Higher, goal));
    }
}

/// What the disk takes to make a small write safe, in microseconds (median).
fn sync_micros(folder: &Path) -> Result<f64> {
    let path = folder.join("sync");
    let write = || -> std::io::Result<Vec<f64>> {
        let mut file = File::create(&path)?;
        let page = [7; 4096];
        (0..SYNCS)
            .map(|_| {
                let watch = Stopwatch::start();
                file.write_all(&page)?;
                file.sync_data()?;
                Ok(watch.elapsed().as_secs_f64() * 1e6)
            })
            .collect()
    };
    let micros = write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(median(&micros))
}
