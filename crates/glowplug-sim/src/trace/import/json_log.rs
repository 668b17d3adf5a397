//! Logs with one JSON object a line, as nginx, Caddy and Traefik write them.

use std::io::Read;

use serde_json::{Map, Value};

use super::super::error::{Error, Fault};
use super::super::lines::{Line, Lines};
use super::super::open::Peeked;
use super::super::options::{Names, NoService, Options, Stamp, Unit};
use super::app_path::{AppPath, Asked};
use super::apps::Apps;
use super::text::{Clock, Length, length, length_of};
use super::{LeftOut, Row, Rows, before};

const TIME: &[&str] = &[
    "StartUTC",
    "start_time",
    "started_at",
    "msec",
    "time_iso8601",
    "timestamp",
    "@timestamp",
    "ts",
    "time",
    "time_local",
];
const SERVICE: &[&str] = &[
    "request_time",
    "Duration",
    "duration",
    "duration_ms",
    "duration_s",
    "latency",
    "latency_ms",
    "elapsed_ms",
    "response_time",
    "response_time_ms",
];
const APP: &[&str] = &["app", "app_id", "application", "app_name"];
const PATH: &[&str] =
    &["path", "uri", "request_uri", "request.uri", "RequestPath", "url", "request"];
const METHOD: &[&str] = &["method", "request_method", "request.method", "RequestMethod"];
const STATUS: &[&str] = &["status", "status_code", "DownstreamStatus"];
/// Fields named in an error; there may be any number.
const SHOWN_MAX: usize = 30;

pub(super) struct JsonLog<R: Read> {
    lines: Lines<Peeked<R>>,
    names: Names,
    clock: Clock,
    service_unit: Option<Unit>,
    stamp: Option<Stamp>,
    no_service: NoService,
    app_path: AppPath,
    one_app: Option<String>,
    apps: Apps,
    left_out: LeftOut,
}

type Object = Map<String, Value>;

impl<R: Read> JsonLog<R> {
    pub(super) fn new(whole: Peeked<R>, options: &Options) -> Result<Self, Error> {
        Ok(Self {
            lines: Lines::new(whole),
            names: options.names.clone(),
            clock: Clock::new(options.time_unit),
            service_unit: options.service_unit,
            stamp: options.stamp,
            no_service: options.no_service,
            app_path: AppPath::new(options.app_path.as_deref()).map_err(|fault| fault.at(1))?,
            one_app: options.one_app.clone(),
            apps: Apps::default(),
            left_out: LeftOut::default(),
        })
    }

    /// `None`: the line is about something else.
    fn row(&mut self, line: u64, object: &Object) -> Result<Option<Row>, Fault> {
        let Some(asked) = self.asked(object) else {
            self.left_out.no_app += 1;
            return Ok(None);
        };
        let service = match self.service(object)? {
            Some(Length::Of(service)) if !service.is_zero() => Some(service),
            Some(_) if self.no_service == NoService::Drop => {
                self.left_out.no_service += 1;
                return Ok(None);
            }
            _ => None,
        };
        let Some((name, value)) = find(object, self.names.time.as_ref(), TIME) else {
            return Err(missing("time", self.names.time.clone(), object));
        };
        let written = match value {
            Value::Number(number) => number.as_f64().and_then(|number| self.clock.number(number)),
            Value::String(text) => self.clock.read_log(text),
            _ => None,
        };
        let written = written.ok_or_else(|| bad(name, value, "which is no time"))?;
        let by_name =
            if name.to_lowercase().starts_with("start") { Stamp::Start } else { Stamp::End };
        let at = match (self.stamp.unwrap_or(by_name), service) {
            (Stamp::End, Some(service)) => before(written, service),
            _ => written,
        };
        let status = find(object, self.names.status.as_ref(), STATUS);
        let status = status.and_then(|(_, value)| plain(value).parse().ok());
        let app = self.apps.number(&asked.name)?;
        let (mode, service) = asked.mode(service);
        // Lines are written when requests end, whatever their time is of.
        let written = written.max(at);
        Ok(Some(Row { line, at, written, app, mode, service, status }))
    }

    fn asked(&self, object: &Object) -> Option<Asked> {
        if let Some((_, app)) = find(object, self.names.app.as_ref(), APP) {
            let name = plain(app);
            return (!name.is_empty()).then_some(Asked { name, queued: false });
        }
        let path = plain(find(object, self.names.path.as_ref(), PATH)?.1);
        // nginx's `$request` is a whole request line.
        let mut words = path.split(' ');
        let (method, target) = match (words.next(), words.next()) {
            (Some(method), Some(target)) => (method.to_owned(), target),
            _ => (find(object, None, METHOD).map_or_else(String::new, |(_, m)| plain(m)), &*path),
        };
        self.app_path.asked(&method, target, self.one_app.as_deref())
    }

    fn service(&self, object: &Object) -> Result<Option<Length>, Fault> {
        let Some((name, value)) = find(object, self.names.service.as_ref(), SERVICE) else {
            return Ok(None);
        };
        // Traefik's counts nanoseconds, and nobody else writes it so.
        let by_name = if name == "Duration" { Some(Unit::Nanos) } else { Unit::of_name(name) };
        let unit = self.service_unit.or(by_name).unwrap_or(Unit::Seconds);
        let found = match value {
            Value::Number(number) => length_of(number.as_f64().unwrap_or(f64::NAN), unit),
            other => length(&plain(other), unit),
        };
        match found {
            Length::Bad => Err(bad(name, value, "which is no length of time")),
            found => Ok(Some(found)),
        }
    }
}

impl<R: Read> Rows for JsonLog<R> {
    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        loop {
            let Some(Line { number: line, text, .. }) = self.lines.next_line()? else {
                return Ok(None);
            };
            if text.trim_ascii().is_empty() {
                continue;
            }
            let object = serde_json::from_slice::<Object>(text).map_err(Fault::Json);
            let row = object.and_then(|object| self.row(line, &object));
            if let Some(row) = row.map_err(|fault| fault.at(line))? {
                return Ok(Some(row));
            }
        }
    }

    fn apps(&self) -> &Apps {
        &self.apps
    }

    fn left_out(&self) -> LeftOut {
        self.left_out
    }
}

/// A field by its name, or the first of the usual ones.
fn find<'a>(
    object: &'a Object,
    wanted: Option<&'a String>,
    usual: &[&'static str],
) -> Option<(&'a str, &'a Value)> {
    match wanted {
        Some(name) => field(object, name).map(|value| (name.as_str(), value)),
        None => usual.iter().find_map(|name| field(object, name).map(|value| (*name, value))),
    }
}

/// `outer.inner` is a field inside another, unless there is one of that whole name.
fn field<'a>(object: &'a Object, name: &str) -> Option<&'a Value> {
    object.get(name).or_else(|| {
        let (outer, inner) = name.split_once('.')?;
        field(object.get(outer)?.as_object()?, inner)
    })
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn bad(name: &str, value: &Value, expected: &'static str) -> Fault {
    Fault::Value { name: name.to_owned(), found: plain(value), expected }
}

fn missing(what: &'static str, wanted: Option<String>, object: &Object) -> Fault {
    let there: Vec<String> = object.keys().take(SHOWN_MAX).map(|key| format!("`{key}`")).collect();
    Fault::Column { what, wanted, there: there.join(", ") }
}
