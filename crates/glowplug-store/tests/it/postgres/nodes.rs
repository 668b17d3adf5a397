//! Several nodes on one queue: who owns what, who hears of what, and what becomes of the work of the dead.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use glowplug_store::{
    Accepted, Change, Completed, KeyRecord, PostgresOptions, PostgresStore, QueuedRequest, Store,
};
use tokio::sync::broadcast::Receiver;

use super::{bystander, fresh, open};
use crate::samples::{at, completion, id, request};

const SCHEMA: &str = "GLOWPLUG_STORE_POSTGRES_TEST_SCHEMA";
const REQUESTS: u128 = 40;
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

async fn node(options: &PostgresOptions) -> Arc<PostgresStore> {
    let store = open(options).await;
    store.begin_boot().await.unwrap();
    store
}

async fn heard(changes: &mut Receiver<Change>, expected: Change) {
    let hearing = async { while changes.recv().await.unwrap() != expected {} };
    tokio::time::timeout(PATIENCE, hearing).await.unwrap_or_else(|_| panic!("no {expected:?}"));
}

async fn submit_all(store: &PostgresStore) {
    for answer in join_all((0..REQUESTS).map(|number| store.submit(request(number)))).await {
        assert_eq!(answer.unwrap(), Accepted::New);
    }
}

/// Takes over until there is nothing left, in small steps, so that others get their share.
async fn take_over(store: Arc<PostgresStore>) -> Vec<u128> {
    let mut taken = Vec::new();
    loop {
        let page = store.adopt(3).await.unwrap();
        if page.is_empty() {
            return taken;
        }
        taken.extend(page.into_iter().map(|head| head.id.0));
    }
}

/// Lets all take over at once and says what each got.
async fn race(survivors: &[Arc<PostgresStore>]) -> Vec<Vec<u128>> {
    let racers = survivors.iter().map(|store| tokio::spawn(take_over(Arc::clone(store))));
    join_all(racers).await.into_iter().map(Result::unwrap).collect()
}

/// A row that another is taking is skipped, so one round may end before the last row is free.
async fn race_for_all(survivors: &[Arc<PostgresStore>], first: u128) -> Vec<Vec<u128>> {
    let mut shares = vec![Vec::new(); survivors.len()];
    while (shares.iter().map(Vec::len).sum::<usize>() as u128) < REQUESTS - first {
        for (share, more) in shares.iter_mut().zip(race(survivors).await) {
            share.extend(more);
        }
    }
    let all: BTreeSet<_> = shares.iter().flatten().copied().collect();
    assert_eq!(all, (first..REQUESTS).collect(), "each is taken once: {shares:?}");
    shares
}

#[tokio::test]
async fn a_node_whose_lease_ran_out_is_fenced() {
    let options = fresh();
    let old = node(&options).await;
    submit_all(&old).await;
    let survivors = [node(&options).await, node(&options).await, node(&options).await];
    assert_eq!(race(&survivors).await.concat(), Vec::<u128>::new(), "the owner lives");

    // As if it had been cut off from the server: it renews every 20 minutes.
    let past = "UPDATE nodes SET lease_until = now() - interval '1 second' WHERE boot = 1";
    bystander(&options).await.batch_execute(past).await.unwrap();
    let done = old.complete(id(0), completion(at(1), b"in time")).await.unwrap();
    assert_eq!(done, Completed::Recorded, "nobody has taken it over yet");
    old.submit(request(0)).await.unwrap_err();
    let shares = race_for_all(&survivors, 1).await;
    for (store, share) in survivors.iter().zip(&shares) {
        for number in share {
            let late = old.complete(id(*number), completion(at(2), b"late")).await.unwrap();
            assert_eq!(late, Completed::Fenced);
            let done = store.complete(id(*number), completion(at(3), b"done")).await.unwrap();
            assert_eq!(done, Completed::Recorded);
            let late = old.complete(id(*number), completion(at(4), b"late")).await.unwrap();
            assert_eq!(late, Completed::AlreadyComplete);
            let response = survivors[0].response(id(*number)).await.unwrap().unwrap();
            assert_eq!(response.body, b"done");
        }
    }
}

#[tokio::test]
async fn a_killed_node_is_noticed_and_its_work_taken_over_once() {
    let schema = std::env::var(SCHEMA);
    let short = PostgresOptions { lease: Duration::from_millis(1_500), ..fresh() };
    if let Ok(schema) = schema {
        return live_until_killed(&PostgresOptions { schema, ..short }).await;
    }
    let survivors = [node(&short).await, node(&short).await];
    let mut changes = survivors[0].changes().unwrap();
    let mut victim = start(&short.schema);
    let mut lines = BufReader::new(victim.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "submitted."), "it died early");
    drop(victim);
    heard(&mut changes, Change::Orphaned).await;
    race_for_all(&survivors, 0).await;
}

#[expect(clippy::disallowed_methods, reason = "this test owns its child and kills it")]
fn start(schema: &str) -> Victim {
    let name = "postgres::nodes::a_killed_node_is_noticed_and_its_work_taken_over_once";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(SCHEMA, schema)
        .stdout(Stdio::piped())
        .spawn();
    Victim(child.unwrap())
}

struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

async fn live_until_killed(options: &PostgresOptions) {
    let store = node(options).await;
    submit_all(&store).await;
    std::io::stdout().write_all(b"\nsubmitted.\n").unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_node_that_is_closed_gives_its_work_back_at_once() {
    let options = fresh();
    let (old, new) = (node(&options).await, node(&options).await);
    let mut changes = new.changes().unwrap();
    submit_all(&old).await;
    old.close().await;
    heard(&mut changes, Change::Orphaned).await;
    race_for_all(&[new], 0).await;
}

#[tokio::test]
async fn nodes_hear_of_answers_and_cancellations() {
    let options = fresh();
    let (here, there) = (node(&options).await, node(&options).await);
    let (mut at_here, mut at_there) = (here.changes().unwrap(), there.changes().unwrap());
    for number in 1..=2 {
        here.submit(request(number)).await.unwrap();
    }
    here.started(id(1), 1).await.unwrap();
    assert!(there.request(id(1)).await.unwrap().unwrap().started);
    assert!(!there.request(id(2)).await.unwrap().unwrap().started);
    assert_eq!(there.ahead(id(2)).await.unwrap(), 1);

    there.ask_cancel(id(1)).await.unwrap();
    there.ask_cancel(id(9)).await.unwrap();
    assert_eq!(at_here.recv().await.unwrap(), Change::CancelAsked(id(1)));
    here.complete(id(1), completion(at(1), b"")).await.unwrap();
    // The next thing each hears: nothing was for `there` before, and `here` knows what it did.
    assert_eq!(at_there.recv().await.unwrap(), Change::Completed(id(1)));
    here.ask_cancel(id(2)).await.unwrap();
    assert_eq!(at_here.recv().await.unwrap(), Change::CancelAsked(id(2)));

    // Who takes the request over is told what its caller wanted.
    here.close().await;
    heard(&mut at_there, Change::Orphaned).await;
    assert_eq!(there.adopt(10).await.unwrap().len(), 1);
    heard(&mut at_there, Change::CancelAsked(id(2))).await;
}

#[tokio::test]
async fn nodes_hear_of_keys_and_settings_of_apps() {
    let options = fresh();
    let (here, there) = (node(&options).await, node(&options).await);
    let mut at_there = there.changes().unwrap();
    let key = KeyRecord {
        id: "k".to_owned(),
        secret_sha256: [7; 32],
        alias: String::new(),
        scope: "ADMIN".to_owned(),
        created_at: at(1),
    };
    let (app, name) = ("local/app".to_owned(), "scaling".to_owned());
    here.put_key(key).await.unwrap();
    assert_eq!(at_there.recv().await.unwrap(), Change::Settings);
    here.delete_key("k".to_owned()).await.unwrap();
    assert_eq!(at_there.recv().await.unwrap(), Change::Settings);
    here.put_setting(app.clone(), name.clone(), "{}".to_owned()).await.unwrap();
    assert_eq!(at_there.recv().await.unwrap(), Change::Settings);
    here.delete_setting(app, name).await.unwrap();
    assert_eq!(at_there.recv().await.unwrap(), Change::Settings);
    // The next thing it hears: of the node's own bookkeeping nobody is told.
    here.put_setting(String::new(), "mark".to_owned(), "true".to_owned()).await.unwrap();
    here.submit(request(1)).await.unwrap();
    here.complete(id(1), completion(at(1), b"")).await.unwrap();
    assert_eq!(at_there.recv().await.unwrap(), Change::Completed(id(1)));
}

#[tokio::test]
async fn what_was_missed_is_told_when_the_connection_is_back() {
    let base = fresh();
    let named = |name: &str| PostgresOptions {
        url: format!("{}?application_name={}_{name}", base.url, base.schema),
        ..base.clone()
    };
    let (here, there) = (node(&named("here")).await, node(&named("there")).await);
    let mut changes = there.changes().unwrap();
    here.submit(request(1)).await.unwrap();
    there.submit(request(2)).await.unwrap();
    // What comes back cannot renew its lease, and so not catch up, before this transaction ends.
    let cut = format!(
        "BEGIN; LOCK nodes; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name = '{}_there'",
        base.schema
    );
    let bystander = bystander(&base).await;
    bystander.batch_execute(&cut).await.unwrap();
    here.complete(id(1), completion(at(1), b"")).await.unwrap();
    here.ask_cancel(id(2)).await.unwrap();
    bystander.batch_execute("COMMIT").await.unwrap();
    heard(&mut changes, Change::CancelAsked(id(2))).await;
    heard(&mut changes, Change::Completed(id(1))).await;
    heard(&mut changes, Change::Orphaned).await;
    there.submit(request(3)).await.unwrap();
    assert_eq!(there.pending(None, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn the_webhooks_of_a_dead_node_are_given_to_whoever_takes_over() {
    // Long enough that a busy machine is not taken for dead.
    let options = PostgresOptions { lease: Duration::from_secs(5), ..fresh() };
    let (old, new) = (node(&options).await, node(&options).await);
    let mut changes = new.changes().unwrap();
    let webhook_url = Some("https://example.com".to_owned());
    old.submit(QueuedRequest { webhook_url, ..request(1) }).await.unwrap();
    old.complete(id(1), completion(at(1), b"")).await.unwrap();
    let due = async |store: &PostgresStore| {
        let due = store.due_deliveries(at(2), 10).await.unwrap();
        due.into_iter().map(|delivery| delivery.request).collect::<Vec<_>>()
    };
    assert_eq!(due(&old).await, [id(1)]);
    assert_eq!(new.adopt(10).await.unwrap(), []);
    assert_eq!(due(&new).await, [], "it is called by the node that has it");
    // As a death: nobody gives the lease back. That node has no request left, only the call.
    drop(old);
    heard(&mut changes, Change::Orphaned).await;
    assert_eq!(new.adopt(10).await.unwrap(), []);
    assert_eq!(due(&new).await, [id(1)]);
}

#[tokio::test]
async fn nodes_that_race_share_and_agree() {
    let options = fresh();
    let nodes = [node(&options).await, node(&options).await];
    // The same request under the same key, at both at once.
    for round in 0..20_u128 {
        let same = |number| QueuedRequest {
            idempotency_key: Some(format!("order-{round}")),
            webhook_url: Some("https://example.com".to_owned()),
            body: b"same".to_vec(),
            ..request(number)
        };
        let (left, right) = (same(2 * round), same(2 * round + 1));
        let (a, b) = tokio::join!(nodes[0].submit(left.clone()), nodes[1].submit(right.clone()));
        let expected = match a.unwrap() {
            Accepted::New => Accepted::Before(left.id),
            Accepted::Before(earlier) => {
                assert_eq!(earlier, right.id);
                Accepted::New
            }
        };
        assert_eq!(b.unwrap(), expected);
        let winner = if expected == Accepted::New { (1, right.id) } else { (0, left.id) };
        let done = nodes[winner.0].complete(winner.1, completion(at(1), b"")).await.unwrap();
        assert_eq!(done, Completed::Recorded);
    }
    let give_out = |store: &Arc<PostgresStore>| {
        let store = Arc::clone(store);
        async move { store.due_deliveries(at(2), 3).await.unwrap() }
    };
    let mut given = Vec::new();
    while given.len() < 20 {
        let (a, b) = tokio::join!(give_out(&nodes[0]), give_out(&nodes[1]));
        given.extend(a.into_iter().chain(b).map(|delivery| delivery.request));
    }
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 20, "none is given out twice");

    let claim = |node: usize| {
        nodes[node].claim_setting(String::new(), "token_secret".to_owned(), format!("\"{node}\""))
    };
    let (a, b) = tokio::join!(claim(0), claim(1));
    assert_eq!(a.unwrap(), b.unwrap());
}
