//! What holds for a trace as a whole. Writer and reader keep the same rules.

use std::collections::BTreeMap;

use glowplug_core::Timestamp;

use super::error::Fault;
use super::limits::APPS_MAX;
use super::line::Parsed;
use super::{App, Record};

/// What came so far, as far as it decides what may come next.
#[derive(Debug, Default)]
pub(super) struct Rules {
    apps: BTreeMap<String, u32>,
    request: Timestamp,
    start: Timestamp,
    stop: Timestamp,
}

impl Rules {
    /// The index of an app that was declared before.
    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.apps.get(name).copied()
    }

    pub(super) fn declare(&mut self, app: &App) -> Result<u32, Fault> {
        if self.apps.contains_key(&app.name) {
            return Err(Fault::Twice(app.name.clone()));
        }
        let index = u32::try_from(self.apps.len()).unwrap_or(u32::MAX);
        if index >= APPS_MAX {
            return Err(Fault::Apps);
        }
        self.apps.insert(app.name.clone(), index);
        Ok(index)
    }

    pub(super) fn apps(&self) -> usize {
        self.apps.len()
    }

    /// Refuses a record that goes back in time.
    pub(super) fn advance(&mut self, record: &Record) -> Parsed<()> {
        let (what, last, at) = match record {
            Record::App(_) => return Ok(()),
            Record::Request(request) => ("request", &mut self.request, request.at),
            Record::Start(start) => ("start", &mut self.start, start.at),
            Record::Stop(stop) => ("stop", &mut self.stop, stop.at),
        };
        if at < *last {
            return Err(Fault::Backwards { what, at, last: *last }.into());
        }
        *last = at;
        Ok(())
    }
}

impl Record {
    /// The app it is about; `None`: it declares one.
    pub(super) fn app_mut(&mut self) -> Option<&mut u32> {
        match self {
            Self::App(_) => None,
            Self::Request(request) => Some(&mut request.app),
            Self::Start(start) => Some(&mut start.app),
            Self::Stop(stop) => Some(&mut stop.app),
        }
    }

    pub(super) fn at_mut(&mut self) -> Option<&mut Timestamp> {
        match self {
            Self::App(_) => None,
            Self::Request(request) => Some(&mut request.at),
            Self::Start(start) => Some(&mut start.at),
            Self::Stop(stop) => Some(&mut stop.at),
        }
    }
}
