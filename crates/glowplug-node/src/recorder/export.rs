//! From the files of a recording to one trace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Write};

use glowplug_core::Timestamp;
use glowplug_sim::trace::{App, Error as TraceError, LEVEL_DEFAULT, Reader, Record, Writer};

use super::merge::{Merge, Records, Run};
use super::segment::{self, Contents, Segment, Sorted};
use super::{Error, Selection};
use crate::config::nearest;

/// A trace that is ready to be written.
pub(crate) struct Export {
    since: Timestamp,
    apps: Vec<App>,
    merge: Merge,
    bytes_expected: u64,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    pub records: u64,
    /// Files of which not all could be read, and why.
    pub damaged: Vec<String>,
}

/// Which app of the export each app of a file is. `None`: it is not wanted.
type Indexes = BTreeMap<u32, Option<u32>>;

/// The apps of an export, in the order of their names.
struct Catalogue {
    apps: BTreeMap<String, App>,
}

impl Export {
    pub(super) fn prepare(contents: Contents, selection: &Selection) -> Result<Self, Error> {
        let since = selection.since.unwrap_or(Timestamp::ZERO);
        let Contents { mut sealed, mut open } = contents;
        sealed.retain(|segment| segment.last >= since);
        open.retain(|file| file.sorted.last().is_some_and(|last| last >= since));
        let mut catalogue = Catalogue { apps: BTreeMap::new() };
        for segment in &sealed {
            // A file that cannot be read is told of when its time comes.
            catalogue.enter(declared(segment).unwrap_or_default());
        }
        for file in &open {
            catalogue.enter(file.sorted.apps.values().cloned().collect());
        }
        catalogue.narrow(&selection.apps)?;
        let apps: Vec<App> = catalogue.apps.into_values().collect();
        let index: BTreeMap<String, u32> =
            apps.iter().map(|app| app.name.clone()).zip(0..).collect();
        let bytes_expected = sealed.iter().map(|segment| segment.bytes).sum::<u64>()
            + open.iter().map(|file| file.bytes).sum::<u64>();
        let runs = sealed.into_iter().map(|segment| sealed_run(segment, index.clone()));
        let runs = runs.chain(open.into_iter().map(|file| open_run(file.sorted, &index)));
        Ok(Self { since, apps, merge: Merge::new(runs.collect()), bytes_expected })
    }

    /// About as many are written, at most.
    pub(crate) fn bytes_expected(&self) -> u64 {
        self.bytes_expected
    }

    /// The apps, and the records in order of time, which name them by their place here. A file that breaks
    /// off gives what it has.
    pub(crate) fn into_records(self) -> (Vec<App>, impl Iterator<Item = Record>) {
        let Self { since, apps, merge, .. } = self;
        (apps, merge.filter(move |record| segment::at(record) >= since))
    }

    pub(crate) fn write(self, out: impl Write) -> Result<Exported, TraceError> {
        let Self { since, apps, mut merge, .. } = self;
        let mut next = merge.by_ref().find(|record| segment::at(record) >= since);
        let began = next.as_ref().map(segment::at);
        let mut writer = Writer::new(out, &segment::header(began), LEVEL_DEFAULT)?;
        for app in apps {
            writer.write(&Record::App(app))?;
        }
        let began = began.unwrap_or_default();
        let mut records = 0;
        while let Some(record) = next {
            let (app, at) = (segment::app_of(&record), segment::at(&record));
            if let Some(app) = app {
                writer.write(&segment::translated(record, app, segment::since(at, began)))?;
                records += 1;
            }
            next = merge.next();
        }
        writer.finish()?.flush().map_err(|source| TraceError::Write { line: records, source })?;
        Ok(Exported { records, damaged: merge.damaged() })
    }
}

impl Catalogue {
    /// What was recorded later says how an app is set now.
    fn enter(&mut self, apps: Vec<App>) {
        self.apps.extend(apps.into_iter().map(|app| (app.name.clone(), app)));
    }

    fn narrow(&mut self, wanted: &[String]) -> Result<(), Error> {
        if wanted.is_empty() {
            return Ok(());
        }
        for name in wanted {
            if !self.apps.contains_key(name) {
                let known = self.apps.keys().map(String::as_str);
                let nearest = nearest(name, known).map(str::to_owned);
                return Err(Error::UnknownApp { name: name.clone(), nearest });
            }
        }
        let wanted: BTreeSet<&String> = wanted.iter().collect();
        self.apps.retain(|name, _| wanted.contains(name));
        Ok(())
    }
}

fn reader(segment: &Segment) -> Result<Reader<BufReader<File>>, TraceError> {
    let file = File::open(&segment.path)
        .map_err(|source| TraceError::Open { path: segment.path.clone(), source })?;
    Reader::new(BufReader::new(file))
}

/// The apps of a file. They stand at its beginning.
fn declared(segment: &Segment) -> Result<Vec<App>, TraceError> {
    let mut apps = Vec::new();
    for record in reader(segment)? {
        match record? {
            Record::App(app) => apps.push(app),
            _ => break,
        }
    }
    Ok(apps)
}

fn sealed_run(segment: Segment, index: BTreeMap<String, u32>) -> Run {
    Run {
        first: segment.first,
        name: segment.path.display().to_string(),
        open: Box::new(move || {
            let reader = reader(&segment)?;
            let began = reader.header().began.unwrap_or_default();
            let mut indexes = Indexes::new();
            let records = reader.filter_map(move |record| match record {
                Ok(Record::App(app)) => {
                    let own = u32::try_from(indexes.len()).unwrap_or(u32::MAX);
                    indexes.insert(own, index.get(&app.name).copied());
                    None
                }
                Ok(record) => {
                    let at = began + (segment::at(&record) - Timestamp::ZERO);
                    renamed(record, &indexes, at).map(Ok)
                }
                Err(error) => Some(Err(error)),
            });
            Ok(Box::new(records) as Records)
        }),
    }
}

fn open_run(sorted: Sorted, index: &BTreeMap<String, u32>) -> Run {
    let own = |(id, app): (&u32, &App)| (*id, index.get(&app.name).copied());
    let indexes: Indexes = sorted.apps.iter().map(own).collect();
    let records = sorted.records.into_iter().filter_map(move |record| {
        let at = segment::at(&record);
        renamed(record, &indexes, at).map(Ok)
    });
    let records: Vec<Result<Record, TraceError>> = records.collect();
    Run {
        first: records
            .first()
            .and_then(|record| record.as_ref().ok())
            .map_or(Timestamp::MAX, segment::at),
        name: "what was recorded last".to_owned(),
        open: Box::new(move || Ok(Box::new(records.into_iter()) as Records)),
    }
}

fn renamed(record: Record, indexes: &Indexes, at: Timestamp) -> Option<Record> {
    let app = indexes.get(&segment::app_of(&record)?).copied().flatten()?;
    Some(segment::translated(record, app, at))
}
