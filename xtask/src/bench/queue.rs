//! The durable queue beside what people use for one.
//!
//! Submits: HTTP callers that each wait until their request is on the disk, beside clients of PostgreSQL that
//! insert a row of the same size and commit, and clients of Redis that push with `appendfsync always`. Every
//! one of them syncs before it answers. Jobs: from the first submit until the last of many no-op jobs is
//! done, beside Celery and RQ on such a Redis. Both are measured with the queue in the node's own database
//! and with the queue on the PostgreSQL server that takes the plain inserts in its turn.
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
use ours::Store;

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

/// The cases by callers: with the node's own database, and on PostgreSQL.
const SUBMITS: [[&str; 2]; CALLERS.len()] = [
    ["durable submits, 64 callers", "durable submits on PostgreSQL, 64 callers"],
    ["durable submits, 512 callers", "durable submits on PostgreSQL, 512 callers"],
];
const JOBS: [&str; 2] = ["no-op jobs end to end", "no-op jobs end to end on PostgreSQL"];

/// Who takes submits.
const TAKERS: [&str; 4] =
    ["glowplug", "glowplug on PostgreSQL", "PostgreSQL inserts", "Redis appendfsync always"];
/// Who does jobs.
const DOERS: [&str; 5] = ["glowplug", "glowplug on PostgreSQL", "Celery", "RQ SimpleWorker", "RQ"];

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
                    0 => ours.submits(&folder, &Store::Own, *callers, LOAD_SECONDS)?,
                    1 => {
                        let store = Store::Postgres(postgres.empty_store()?);
                        ours.submits(&folder, &store, *callers, LOAD_SECONDS)?
                    }
                    2 => postgres.inserts(*callers, LOAD_SECONDS)?,
                    _ => redis.pushes(*callers, LOAD_SECONDS)?,
                };
                eprintln!("round {round}: {callers} callers, {}: {per_second:.0}/s", TAKERS[taker]);
                taken[taker].push(per_second);
            }
        }
        for (doer, done) in jobs.iter_mut().enumerate() {
            let per_second = match doer {
                0 => ours.jobs(&folder, &Store::Own, LOAD_SECONDS)?,
                1 => {
                    let store = Store::Postgres(postgres.empty_store()?);
                    ours.jobs(&folder, &store, LOAD_SECONDS)?
                }
                2 => python.jobs("celery")?,
                3 => python.jobs("rq-simple")?,
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
    for (names, taken) in SUBMITS.into_iter().zip(submits) {
        let [own, on_postgres, inserts, pushes] = taken.each_ref().map(|values| median(values));
        let [_, _, inserts_name, pushes_name] = TAKERS;
        let peers = [(inserts_name, inserts, Some(SUBMITS_GOAL)), (pushes_name, pushes, None)];
        compare(&mut cases, names[0], own, &peers);
        compare(&mut cases, names[1], on_postgres, &[(inserts_name, inserts, None)]);
        for (taker, values) in TAKERS.iter().zip(taken) {
            rounds.push((format!("{taker}, {} (1/s)", names[0]), values.clone()));
        }
    }
    let [own, on_postgres, celery, rq_simple, rq] = jobs.each_ref().map(|values| median(values));
    let [_, _, celery_name, rq_simple_name, rq_name] = DOERS;
    let peers = [
        (celery_name, celery, Some(JOBS_GOAL)),
        (rq_simple_name, rq_simple, None),
        (rq_name, rq, None),
    ];
    compare(&mut cases, JOBS[0], own, &peers);
    compare(&mut cases, JOBS[1], on_postgres, &[(celery_name, celery, None)]);
    for (doer, values) in DOERS.iter().zip(jobs) {
        rounds.push((format!("{doer}, {} (1/s)", JOBS[0]), values.clone()));
    }
    eprintln!("the disk syncs 4 KiB in {:.0} µs (median)", median(syncs));
    rounds.push(("sync of 4 KiB, p50 (µs)".to_owned(), syncs.to_vec()));
    Measured { cases, rounds, versions }
}

/// What we do a second beside each of the peers, of which those with a goal must be reached.
fn compare(
    cases: &mut Vec<Case>,
    case: &'static str,
    ours: f64,
    peers: &[(&str, f64, Option<f64>)],
) {
    for (name, peer, goal) in peers {
        let peer = (*name, *peer);
        cases.push(Case::new((NAME, case), ours, peer, "1/s", Better::Higher, *goal));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_store_is_beside_its_own_peers() {
        let submits = [
            [vec![40.0], vec![10.0], vec![20.0], vec![80.0]],
            [vec![41.0], vec![11.0], vec![21.0], vec![81.0]],
        ];
        let jobs = [vec![30.0], vec![12.0], vec![3.0], vec![2.0], vec![1.0]];
        let measured = report(&submits, &jobs, &[100.0], Vec::new());
        let seen = measured.cases.iter().map(|case| {
            let rates = format!("{:.0} beside {:.0}", case.ours, case.peer);
            (case.case.as_str(), case.peer_name.as_str(), rates, case.goal.is_some())
        });
        let expected = [
            ("durable submits, 64 callers", "PostgreSQL inserts", "40 beside 20", true),
            ("durable submits, 64 callers", "Redis appendfsync always", "40 beside 80", false),
            (
                "durable submits on PostgreSQL, 64 callers",
                "PostgreSQL inserts",
                "10 beside 20",
                false,
            ),
            ("durable submits, 512 callers", "PostgreSQL inserts", "41 beside 21", true),
            ("durable submits, 512 callers", "Redis appendfsync always", "41 beside 81", false),
            (
                "durable submits on PostgreSQL, 512 callers",
                "PostgreSQL inserts",
                "11 beside 21",
                false,
            ),
            ("no-op jobs end to end", "Celery", "30 beside 3", true),
            ("no-op jobs end to end", "RQ SimpleWorker", "30 beside 2", false),
            ("no-op jobs end to end", "RQ", "30 beside 1", false),
            ("no-op jobs end to end on PostgreSQL", "Celery", "12 beside 3", false),
        ];
        let expected =
            expected.map(|(case, peer, rates, goal)| (case, peer, rates.to_owned(), goal));
        assert_eq!(seen.collect::<Vec<_>>(), expected);
    }
}
