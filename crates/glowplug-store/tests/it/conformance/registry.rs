//! Settings, keys, the journal.

use std::sync::Arc;

use glowplug_store::Store;

use super::BOUNDS;
use crate::samples::{at, decision, key};

pub(crate) async fn settings_are_replaced_and_deleted(store: Arc<impl Store>) {
    let text = str::to_owned;
    let triple = |app, key, json| (text(app), text(key), text(json));
    store.put_setting(text("local/b"), text("keep_alive"), text("30")).await.unwrap();
    store.put_setting(text("local/a"), text("min_concurrency"), text("1")).await.unwrap();
    store.put_setting(text("local/a"), text("keep_alive"), text("10")).await.unwrap();
    store.put_setting(text("local/a"), text("keep_alive"), text("20")).await.unwrap();
    store.delete_setting(text("local/b"), text("min_concurrency")).await.unwrap();
    let all = [
        triple("local/a", "keep_alive", "20"),
        triple("local/a", "min_concurrency", "1"),
        triple("local/b", "keep_alive", "30"),
    ];
    assert_eq!(store.settings().await.unwrap(), all);
    store.delete_setting(text("local/a"), text("keep_alive")).await.unwrap();
    assert_eq!(store.settings().await.unwrap(), all[1..]);
}

pub(crate) async fn keys_are_replaced_and_deleted(store: Arc<impl Store>) {
    let (old, new) = (key("zebra", at(1)), key("ant", at(2)));
    store.put_key(new.clone()).await.unwrap();
    store.put_key(old.clone()).await.unwrap();
    assert_eq!(store.keys().await.unwrap(), [old.clone(), new.clone()]);
    let mut changed = old.clone();
    changed.secret_sha256 = [0; 32];
    "API".clone_into(&mut changed.scope);
    store.put_key(changed.clone()).await.unwrap();
    assert_eq!(store.keys().await.unwrap(), [changed.clone(), new]);
    assert!(store.delete_key("ant".to_owned()).await.unwrap());
    assert!(!store.delete_key("ant".to_owned()).await.unwrap());
    assert_eq!(store.keys().await.unwrap(), [changed]);
}

pub(crate) async fn the_journal_is_searched_by_subject(store: Arc<impl Store>) {
    let (first, second, third) = (
        decision(1, &["request:a", "app:local/ocr"]),
        decision(2, &["app:local/ocr", "app:local/ocr"]),
        decision(3, &["request:a", "runner:r1-2"]),
    );
    store.append_journal(vec![first.clone(), second.clone()]).await.unwrap();
    store.append_journal(Vec::new()).await.unwrap();
    store.append_journal(vec![third.clone(), decision(4, &[])]).await.unwrap();
    let about = |subject: &str, limit| store.journal(subject.to_owned(), limit);
    assert_eq!(about("request:a", 10).await.unwrap(), [first.clone(), third.clone()]);
    assert_eq!(about("request:a", 1).await.unwrap(), std::slice::from_ref(&third));
    assert_eq!(about("app:local/ocr", 10).await.unwrap(), [first, second]);
    assert_eq!(about("runner:r1-2", usize::MAX).await.unwrap(), [third]);
    assert_eq!(about("request", 10).await.unwrap(), []);
    assert_eq!(about("runner:r1-2", 0).await.unwrap(), []);
}

pub(crate) async fn the_journal_drops_its_oldest(store: Arc<impl Store>) {
    let records_max = BOUNDS.journal_records_max as u64;
    let named = |number: u64| decision(number, &["app:x", &format!("request:{number}")]);
    for number in 0..records_max + 3 {
        store.append_journal(vec![named(number)]).await.unwrap();
    }
    let kept: Vec<_> = (3..records_max + 3).map(named).collect();
    assert_eq!(store.journal("app:x".to_owned(), 100).await.unwrap(), kept);
    assert_eq!(store.journal("request:2".to_owned(), 100).await.unwrap(), []);

    // One batch above the limit leaves its end.
    store.append_journal((100..100 + 2 * records_max).map(named).collect()).await.unwrap();
    let kept: Vec<_> = (100 + records_max..100 + 2 * records_max).map(named).collect();
    assert_eq!(store.journal("app:x".to_owned(), 100).await.unwrap(), kept);
}

pub(crate) async fn the_check_succeeds(store: Arc<impl Store>) {
    for _ in 0..3 {
        store.check().await.unwrap();
    }
}

pub(crate) async fn the_first_claim_of_a_setting_stays(store: Arc<impl Store>) {
    let claim = |app: &str, json: &str| {
        store.claim_setting(app.to_owned(), "webhook_key".to_owned(), json.to_owned())
    };
    assert_eq!(claim("", "1").await.unwrap(), "1");
    assert_eq!(claim("", "2").await.unwrap(), "1");
    assert_eq!(claim("local/a", "3").await.unwrap(), "3");
    store.put_setting(String::new(), "webhook_key".to_owned(), "4".to_owned()).await.unwrap();
    assert_eq!(claim("", "5").await.unwrap(), "4");

    let racers: Vec<_> = (0..16)
        .map(|n| store.claim_setting("race".to_owned(), String::new(), n.to_string()))
        .collect();
    let kept = futures::future::join_all(racers).await;
    let first = kept[0].as_ref().unwrap();
    assert!(kept.iter().all(|each| each.as_ref().unwrap() == first), "{kept:?}");
}
