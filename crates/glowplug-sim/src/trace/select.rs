//! A part of a trace, and what of it the simulator needs.

use std::collections::BTreeSet;
use std::time::Duration;

use glowplug_core::Timestamp;

use super::error::Error;
use super::{Record, Request};
use crate::traffic::Arrival;

/// Which records of a trace are wanted. Times stay as they are; apps are counted anew.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only the first so many requests, and what happens until then.
    pub requests_max: Option<u64>,
    /// Only from this moment on, since the trace's beginning.
    pub from: Option<Duration>,
    /// Only before this moment, since the trace's beginning.
    pub until: Option<Duration>,
    /// Only apps of these names. Empty: all.
    pub apps: BTreeSet<String>,
}

/// The selected records. Stops reading when nothing of the selection can come any more.
pub fn select<I>(records: I, selection: Selection) -> Selected<I::IntoIter>
where
    I: IntoIterator<Item = Result<Record, Error>>,
{
    Selected {
        records: records.into_iter(),
        selection,
        renamed: Vec::new(),
        declared: 0,
        requests: 0,
        over: false,
    }
}

#[derive(Debug)]
pub struct Selected<I> {
    records: I,
    selection: Selection,
    /// What the trace's apps are called here; `None`: it is not selected.
    renamed: Vec<Option<u32>>,
    declared: u32,
    requests: u64,
    over: bool,
}

impl<I: Iterator<Item = Result<Record, Error>>> Iterator for Selected<I> {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            let mut record = match self.records.next()? {
                Ok(record) => record,
                Err(error) => return Some(Err(error)),
            };
            if self.wants(&mut record) {
                return Some(Ok(record));
            }
        }
        None
    }
}

impl<I> Selected<I> {
    fn wants(&mut self, record: &mut Record) -> bool {
        if let Record::App(app) = record {
            let apps = &self.selection.apps;
            let wanted = apps.is_empty() || apps.contains(&app.name);
            self.renamed.push(wanted.then_some(self.declared));
            self.declared += u32::from(wanted);
            return wanted;
        }
        let is_request = matches!(record, Record::Request(_));
        let at = *record.at_mut().expect("only an app has none") - Timestamp::ZERO;
        let late = self.selection.until.is_some_and(|until| at >= until);
        // Starts and stops may stand behind requests that came later, so only a request ends it.
        self.over = late && is_request;
        if late || self.selection.from.is_some_and(|from| at < from) {
            return false;
        }
        let app = record.app_mut().expect("only an app has none");
        let Some(renamed) = self.renamed.get(*app as usize).copied().flatten() else {
            return false;
        };
        *app = renamed;
        if is_request {
            self.requests += 1;
            self.over = self.selection.requests_max.is_some_and(|max| self.requests > max);
        }
        !self.over
    }
}

/// The requests of a trace, as the simulator lets them arrive.
pub fn arrivals<I>(records: I) -> impl Iterator<Item = Result<Arrival, Error>>
where
    I: IntoIterator<Item = Result<Record, Error>>,
{
    records.into_iter().filter_map(|record| match record {
        Ok(Record::Request(request)) => Some(Ok(Arrival::from(&request))),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

impl From<&Request> for Arrival {
    fn from(request: &Request) -> Self {
        Self {
            at: request.at,
            app: request.app,
            service: request.service,
            mode: request.mode,
            priority: request.priority,
            start_within: request.start_within,
        }
    }
}
