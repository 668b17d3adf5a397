//! How the tests here read a text.

use std::io::Cursor;
use std::time::Duration;

use glowplug_sim::trace::{Error, LeftOut, Options, Record, Request, Trace};

/// A request as a test writes it down: app, arrival and service time in milliseconds, status.
pub(crate) type Row<'a> = (&'a str, u64, Option<u64>, Option<u16>);

pub(crate) struct Read {
    pub(crate) trace: Trace,
    pub(crate) requests: Vec<Request>,
    pub(crate) names: Vec<String>,
}

pub(crate) fn read(text: &str, options: &Options) -> Result<Read, Error> {
    read_with(text, None, options)
}

pub(crate) fn read_with(
    text: &str,
    durations: Option<&str>,
    options: &Options,
) -> Result<Read, Error> {
    let stream = |text: &str| Cursor::new(text.to_owned().into_bytes());
    let durations =
        durations.map(|text| -> Box<dyn std::io::Read + Send> { Box::new(stream(text)) });
    let mut trace = Trace::read(stream(text), durations, options)?;
    let (mut requests, mut names) = (Vec::new(), Vec::new());
    for record in &mut trace {
        match record? {
            Record::App(app) => names.push(app.name),
            Record::Request(request) => {
                assert!((request.app as usize) < names.len(), "an app comes before its requests");
                requests.push(request);
            }
            other => panic!("nobody else writes {other:?}"),
        }
    }
    Ok(Read { trace, requests, names })
}

impl Read {
    pub(crate) fn rows(&self) -> Vec<Row<'_>> {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap();
        let row = |request: &Request| {
            let at = request.at.as_micros() / 1_000;
            let name = self.names[request.app as usize].as_str();
            (name, at, request.service.map(millis), request.status)
        };
        self.requests.iter().map(row).collect()
    }

    pub(crate) fn left_out(&self) -> (u64, u64) {
        let LeftOut { no_service, no_app } = self.trace.left_out();
        (no_service, no_app)
    }
}

/// What reading the text ends with.
pub(crate) fn complaint(text: &str, options: &Options) -> String {
    match read(text, options) {
        Ok(_) => "nothing is wrong".to_owned(),
        Err(error) => error.to_string(),
    }
}
