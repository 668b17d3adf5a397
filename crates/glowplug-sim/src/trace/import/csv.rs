//! A CSV with one request a row.

use std::io::Read;

use glowplug_core::request::Mode;

use super::super::error::Error;
use super::super::open::Peeked;
use super::super::options::{NoService, Options, Stamp, Unit};
use super::apps::Apps;
use super::table::{Table, separator};
use super::text::{Clock, Length, length};
use super::{LeftOut, Row, Rows, before};

const TIME: &[&str] =
    &["time", "timestamp", "ts", "at", "arrived_at", "arrival", "created_at", "started_at"];
const APP: &[&str] = &["app", "app_id", "application", "app_name", "model", "endpoint", "function"];
const SERVICE: &[&str] = &[
    "service",
    "service_time",
    "service_ms",
    "service_s",
    "duration",
    "duration_ms",
    "duration_s",
    "exec_time",
    "execution_time",
    "runtime_ms",
    "latency_ms",
];
const STATUS: &[&str] = &["status", "status_code", "http_status"];

/// One request a row.
pub(super) struct Requests<R: Read> {
    table: Table<R>,
    places: Places,
    clock: Clock,
    one_app: Option<String>,
    service_unit: Unit,
    stamp: Stamp,
    no_service: NoService,
    apps: Apps,
    left_out: LeftOut,
}

/// Where in a row something stands.
struct Places {
    time: usize,
    app: Option<usize>,
    service: Option<usize>,
    status: Option<usize>,
}

impl<R: Read> Requests<Peeked<R>> {
    pub(super) fn new(whole: Peeked<R>, options: &Options) -> Result<Self, Error> {
        let separator = separator(whole.head());
        let table = Table::new(whole, separator)?;
        let names = &options.names;
        let time = table.column("time", names.time.as_ref(), TIME)?;
        let time = time.ok_or_else(|| table.missing("time", None))?;
        let app = table.column("app", names.app.as_ref(), APP)?;
        if app.is_none() && options.one_app.is_none() {
            return Err(table.missing("app", None));
        }
        let service = table.column("service", names.service.as_ref(), SERVICE)?;
        let status = table.column("status", names.status.as_ref(), STATUS)?;
        let by_name = service.and_then(|at| Unit::of_name(&table.columns()[at]));
        Ok(Self {
            places: Places { time, app, service, status },
            clock: Clock::new(options.time_unit),
            one_app: options.one_app.clone(),
            service_unit: options.service_unit.or(by_name).unwrap_or(Unit::Seconds),
            stamp: options.stamp.unwrap_or(Stamp::Start),
            no_service: options.no_service,
            apps: Apps::default(),
            left_out: LeftOut::default(),
            table,
        })
    }
}

impl<R: Read> Rows for Requests<R> {
    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        loop {
            let places = &self.places;
            let Some(row) = self.table.next_row()? else { return Ok(None) };
            let service = match places.service {
                None => None,
                Some(at) => match length(row.field(at), self.service_unit) {
                    Length::Of(service) if !service.is_zero() => Some(service),
                    Length::Bad => return Err(row.bad(at, "which is no length of time")),
                    Length::Nothing | Length::Of(_) if self.no_service == NoService::Drop => {
                        self.left_out.no_service += 1;
                        continue;
                    }
                    Length::Nothing | Length::Of(_) => None,
                },
            };
            let written = self.clock.read(row.field(places.time));
            let written = written.ok_or_else(|| row.bad(places.time, "which is no time"))?;
            let line = row.line;
            let name = match (&self.one_app, places.app) {
                (Some(name), _) => name,
                (None, at) => row.field(at.unwrap_or_default()),
            };
            let app = self.apps.number(name).map_err(|fault| fault.at(line))?;
            let status = places.status.and_then(|at| row.field(at).parse().ok());
            let at = match (self.stamp, service) {
                (Stamp::End, Some(service)) => before(written, service),
                _ => written,
            };
            return Ok(Some(Row { line, at, written, app, mode: Mode::Queued, service, status }));
        }
    }

    fn apps(&self) -> &Apps {
        &self.apps
    }

    fn left_out(&self) -> LeftOut {
        self.left_out
    }
}
