use std::fs;
use std::path::Path;
use std::time::Duration;

use glowplug_core::{AppId, Timestamp};
use glowplug_sim::trace::{App, Reader, Record, Request, Start};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::Disk;
use super::*;

const SMALL: RecorderConfig =
    RecorderConfig { enabled: true, bytes_max: 64 << 10, segment_bytes: 8 << 10 };
const LARGE: RecorderConfig =
    RecorderConfig { enabled: true, bytes_max: 64 << 20, segment_bytes: 8 << 10 };

fn open(data_dir: &Path, config: &RecorderConfig) -> Disk {
    Disk::open(dir(data_dir), config).unwrap()
}

fn app(id: u32, name: &str) -> Entry {
    Entry::App(Box::new((AppId(id), App::named(name))))
}

fn request(at: Timestamp, app: u32) -> Request {
    Request { waited: Some(Duration::ZERO), status: Some(200), ..Request::new(at, app, None) }
}

fn append(disk: &mut Disk, entries: Vec<Entry>) {
    let mut entries = entries;
    assert_eq!(disk.append(&mut entries), 0);
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(1_759_400_000 + secs)
}

fn exported(data_dir: &Path, selection: &Selection) -> Vec<Record> {
    let mut trace = Vec::new();
    let exported = export(data_dir, selection, &mut trace).unwrap();
    assert_eq!(exported.damaged, Vec::<String>::new());
    let records: Vec<Record> = Reader::new(trace.as_slice()).unwrap().map(Result::unwrap).collect();
    let apps = records.iter().filter(|record| matches!(record, Record::App(_))).count();
    assert_eq!(exported.records, (records.len() - apps) as u64);
    records
}

fn requests(records: &[Record]) -> Vec<Request> {
    let request = |record: &Record| match record {
        Record::Request(request) => Some(*request),
        _ => None,
    };
    records.iter().filter_map(request).collect()
}

fn files(data_dir: &Path, extension: &str) -> usize {
    let names = fs::read_dir(dir(data_dir)).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|found| found == extension)).count()
}

#[test]
fn what_ended_out_of_order_is_exported_in_order_of_arrival() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = open(folder.path(), &LARGE);
    append(&mut disk, vec![app(0, "local/fast"), app(1, "local/slow")]);
    let mut random = StdRng::seed_from_u64(7);
    let mut ended: Vec<(Timestamp, Request)> = (0..5_000)
        .map(|nth| {
            let came = at(nth);
            // Some take as long as several files.
            let (app, service) = match nth % 100 {
                0 => (1, Duration::from_secs(random.random_range(0..4_000))),
                _ => (0, Duration::from_millis(random.random_range(0..3_000))),
            };
            (came + service, Request { service: Some(service), ..request(came, app) })
        })
        .collect();
    ended.sort_by_key(|(ended, request)| (*ended, request.at));
    let entries = ended.iter().map(|(_, request)| Entry::Request(*request)).collect();
    append(&mut disk, entries);
    assert!(files(folder.path(), "gptrace") > 5, "they lie in many files");
    assert_eq!(files(folder.path(), "open"), 1);

    let records = exported(folder.path(), &Selection::default());
    let requests = requests(&records);
    assert_eq!(requests.len(), 5_000);
    for (nth, request) in (0..).zip(&requests) {
        assert_eq!(request.at, Timestamp::from_secs(nth), "the first one is the beginning");
        assert_eq!(request.app, u32::from(nth % 100 == 0));
        assert!(request.service.is_some() && request.status == Some(200));
    }
    let extent = disk.extent();
    assert_eq!((extent.records, extent.first, extent.last), (5_000, Some(at(0)), Some(at(4_999))));
    assert_eq!(look(folder.path()).unwrap(), extent.into());
}

#[test]
fn a_part_can_be_exported() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = open(folder.path(), &LARGE);
    append(&mut disk, vec![app(4, "local/one"), app(9, "team/two")]);
    append(
        &mut disk,
        (0..2_000)
            .map(|nth| Entry::Request(request(at(nth), if nth % 2 == 0 { 4 } else { 9 })))
            .collect(),
    );
    let select = |since: Option<u64>, apps: &[&str]| Selection {
        since: since.map(at),
        apps: apps.iter().map(|app| (*app).to_owned()).collect(),
    };
    let check = |selection: &Selection, apps: &[&str], count: usize| {
        let records = exported(folder.path(), selection);
        let names: Vec<&str> = records
            .iter()
            .filter_map(|record| match record {
                Record::App(app) => Some(app.name.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(names, apps, "{selection:?}");
        assert_eq!(requests(&records).len(), count, "{selection:?}");
    };
    check(&select(None, &[]), &["local/one", "team/two"], 2_000);
    check(&select(None, &["team/two"]), &["team/two"], 1_000);
    check(&select(Some(1_500), &[]), &["local/one", "team/two"], 500);
    check(&select(Some(1_501), &["local/one"]), &["local/one"], 249);
    // Nothing came since, and it is a trace all the same.
    check(&select(Some(99_999), &[]), &[], 0);
    let unknown = export(folder.path(), &select(None, &["team/tow"]), &mut Vec::new());
    let message = unknown.unwrap_err().to_string();
    assert_eq!(message, "nothing of `team/tow` is recorded; did you mean `team/two`?");
}

#[test]
fn recordings_keep_within_their_bound() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = open(folder.path(), &SMALL);
    append(&mut disk, vec![app(0, "local/app")]);
    let mut random = StdRng::seed_from_u64(3);
    let mut came = at(0);
    for _ in 0..200 {
        let entries = (0..200).map(|_| {
            came = came + Duration::from_micros(random.random_range(1..10_000_000));
            let service = Some(Duration::from_micros(random.random_range(0..100_000_000)));
            Entry::Request(Request { service, ..request(came, 0) })
        });
        append(&mut disk, entries.collect());
        let entries = fs::read_dir(dir(folder.path())).unwrap();
        let bytes: u64 = entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes <= SMALL.bytes_max, "{bytes} bytes");
    }
    let kept = requests(&exported(folder.path(), &Selection::default()));
    assert!(kept.len() > 1_000 && kept.len() < 40_000, "{} are kept", kept.len());
    assert_eq!(disk.extent().last, Some(came), "the newest are");
}

#[test]
fn a_new_life_finishes_what_the_last_one_left() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = open(folder.path(), &LARGE);
    append(&mut disk, vec![app(0, "local/a"), app(1, "local/b")]);
    append(&mut disk, (0..10).map(|nth| Entry::Request(request(at(nth), 1))).collect());
    drop(disk);
    // The machine died while the last entry was being written.
    let path = super::segment::open_path(&dir(folder.path()), 1);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    assert_eq!(requests(&exported(folder.path(), &Selection::default())).len(), 9);

    let mut disk = open(folder.path(), &LARGE);
    assert_eq!((files(folder.path(), "open"), files(folder.path(), "gptrace")), (0, 1));
    // Apps may have other numbers in every life.
    append(&mut disk, vec![app(0, "local/b")]);
    append(&mut disk, vec![Entry::Request(request(at(20), 0))]);
    let records = exported(folder.path(), &Selection::default());
    let names: Vec<u32> = requests(&records).iter().map(|request| request.app).collect();
    assert_eq!(names, [1; 10], "all are of the second app by name");

    // A crash between the two steps of sealing.
    drop(disk);
    fs::write(super::segment::open_path(&dir(folder.path()), 1), &whole).unwrap();
    fs::write(dir(folder.path()).join("00000007.sealing"), "half").unwrap();
    assert_eq!(requests(&exported(folder.path(), &Selection::default())).len(), 10);
    drop(open(folder.path(), &LARGE));
    assert_eq!(requests(&exported(folder.path(), &Selection::default())).len(), 10);
    assert_eq!((files(folder.path(), "open"), files(folder.path(), "sealing")), (0, 0));
}

#[test]
fn a_damaged_file_costs_its_own_records_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = open(folder.path(), &LARGE);
    append(&mut disk, vec![app(0, "local/app")]);
    append(&mut disk, (0..3_000).map(|nth| Entry::Request(request(at(nth), 0))).collect());
    let listing = super::segment::list(&dir(folder.path())).unwrap();
    let victim = &listing.sealed[1];
    let bytes = fs::read(&victim.path).unwrap();
    fs::write(&victim.path, &bytes[..bytes.len() / 2]).unwrap();
    let mut trace = Vec::new();
    let exported = export(folder.path(), &Selection::default(), &mut trace).unwrap();
    assert_eq!(exported.damaged.len(), 1, "{:?}", exported.damaged);
    assert!(exported.damaged[0].contains("00000002-"), "{:?}", exported.damaged);
    let read: Vec<Record> = Reader::new(trace.as_slice()).unwrap().map(Result::unwrap).collect();
    let count = requests(&read).len() as u64;
    assert!((3_000 - victim.records..3_000).contains(&count), "{count}");
}

#[test]
fn what_cannot_be_written_is_counted_and_the_rest_is_not_harmed() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = open(folder.path(), &LARGE);
    append(&mut disk, vec![app(0, "local/app")]);
    // The directory goes: no file can be begun.
    fs::remove_dir_all(dir(folder.path())).unwrap();
    let mut entries = vec![Entry::Request(request(at(0), 0)), Entry::Request(request(at(1), 0))];
    assert_eq!(disk.append(&mut entries), 2);
    assert_eq!(entries, []);
    fs::create_dir(dir(folder.path())).unwrap();
    append(&mut disk, vec![Entry::Request(request(at(2), 0))]);
    assert_eq!(requests(&exported(folder.path(), &Selection::default())).len(), 1);
}

#[test]
fn the_last_word_on_an_app_counts() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = open(folder.path(), &LARGE);
    let scaled = |min_concurrency| {
        let scaling = Some(glowplug_core::spec::Scaling { min_concurrency, ..Default::default() });
        Entry::App(Box::new((AppId(0), App { scaling, ..App::named("local/app") })))
    };
    append(&mut disk, vec![scaled(1), Entry::Request(request(at(0), 0)), scaled(2)]);
    drop(disk);
    let mut disk = open(folder.path(), &LARGE);
    append(&mut disk, vec![scaled(3), Entry::Request(request(at(1), 0)), scaled(4)]);
    let records = exported(folder.path(), &Selection::default());
    let Record::App(app) = &records[0] else { panic!("{records:?}") };
    assert_eq!(app.scaling.unwrap().min_concurrency, 4);
    assert_eq!(records.len(), 3);
}

#[test]
fn starts_and_stops_stand_among_requests() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = open(folder.path(), &LARGE);
    let start = Start {
        at: at(5),
        app: 0,
        cause: glowplug_core::decision::StartCause::Expired,
        pending: Duration::from_millis(1),
        pull: None,
        setup: Duration::from_secs(3),
        ready: true,
    };
    let entries = vec![
        app(0, "local/app"),
        Entry::Request(request(at(9), 0)),
        Entry::Start(Box::new(start)),
        Entry::Request(request(at(4), 0)),
    ];
    append(&mut disk, entries);
    let records = exported(folder.path(), &Selection::default());
    let Record::Start(found) = &records[2] else { panic!("{records:?}") };
    assert_eq!(*found, Start { at: Timestamp::from_secs(1), ..start });
}
