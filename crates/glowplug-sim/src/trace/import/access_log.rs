//! Access logs in the common and the combined format, with the request's time behind it if there is one.
//!
//! ```text
//! ::1 - me [10/Oct/2000:13:55:36 -0700] "POST /run/me/ocr HTTP/1.1" 200 512 "-" "curl/8" 1.234
//! ```

use std::io::Read;

use super::super::error::{Error, Fault};
use super::super::lines::{Line, Lines};
use super::super::open::Peeked;
use super::super::options::{NoService, Options, Stamp, Unit};
use super::app_path::AppPath;
use super::apps::Apps;
use super::text::{Clock, Length, length};
use super::{LeftOut, Row, Rows, before};

pub(super) struct AccessLog<R: Read> {
    lines: Lines<Peeked<R>>,
    clock: Clock,
    /// Of times that are whole numbers. Those are not read without it: they may be anything.
    whole_unit: Option<Unit>,
    stamp: Stamp,
    no_service: NoService,
    app_path: AppPath,
    one_app: Option<String>,
    apps: Apps,
    left_out: LeftOut,
}

/// What one line says.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    time: &'a str,
    /// As in `GET / HTTP/1.1`. What is no HTTP stands here too.
    request: &'a str,
    status: &'a str,
    /// Behind status, bytes, referer and agent.
    last: Option<&'a str>,
}

impl<R: Read> AccessLog<R> {
    pub(super) fn new(whole: Peeked<R>, options: &Options) -> Result<Self, Error> {
        Ok(Self {
            lines: Lines::new(whole),
            clock: Clock::new(options.time_unit),
            whole_unit: options.service_unit,
            stamp: options.stamp.unwrap_or(Stamp::End),
            no_service: options.no_service,
            app_path: AppPath::new(options.app_path.as_deref()).map_err(|fault| fault.at(1))?,
            one_app: options.one_app.clone(),
            apps: Apps::default(),
            left_out: LeftOut::default(),
        })
    }
}

impl<R: Read> Rows for AccessLog<R> {
    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        loop {
            let Some(Line { number: line, text, .. }) = self.lines.next_line()? else {
                return Ok(None);
            };
            // Clients may send anything, and some of it is logged as it came.
            let text = String::from_utf8_lossy(text);
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            let entry = parse(text).map_err(|problem| Fault::Log(problem).at(line))?;
            let Some(written) = self.clock.read_log(entry.time) else {
                let (name, found) = ("time".to_owned(), entry.time.to_owned());
                let expected = "and must be as in 10/Oct/2000:13:55:36 -0700";
                return Err(Fault::Value { name, found, expected }.at(line));
            };
            let (method, rest) = entry.request.split_once(' ').unwrap_or_default();
            let target = rest.split(' ').next().unwrap_or_default();
            let Some(asked) = self.app_path.asked(method, target, self.one_app.as_deref()) else {
                self.left_out.no_app += 1;
                continue;
            };
            let service = match entry.last.map(|text| service(text, self.whole_unit)) {
                Some(Length::Of(service)) if !service.is_zero() => Some(service),
                Some(Length::Of(_)) if self.no_service == NoService::Drop => {
                    self.left_out.no_service += 1;
                    continue;
                }
                _ => None,
            };
            let app = self.apps.number(&asked.name).map_err(|fault| fault.at(line))?;
            let at = match (self.stamp, service) {
                (Stamp::End, Some(service)) => before(written, service),
                _ => written,
            };
            let (mode, service) = asked.mode(service);
            let status = entry.status.parse().ok();
            return Ok(Some(Row { line, at, written, app, mode, service, status }));
        }
    }

    fn apps(&self) -> &Apps {
        &self.apps
    }

    fn left_out(&self) -> LeftOut {
        self.left_out
    }
}

/// What is no length of time there is something else.
fn service(text: &str, whole_unit: Option<Unit>) -> Length {
    let whole = text.bytes().all(|byte| byte.is_ascii_digit());
    match whole_unit {
        Some(unit) => length(text, unit),
        None if whole => Length::Nothing,
        None => length(text, Unit::Seconds),
    }
}

fn parse(line: &str) -> Result<Entry<'_>, &'static str> {
    let (_, rest) = line.split_once('[').ok_or("it has no time in brackets")?;
    let (time, rest) = rest.split_once(']').ok_or("it has no time in brackets")?;
    let rest = rest.trim_start().strip_prefix('"').ok_or("it has no request in quotes")?;
    let (request, rest) = quoted(rest).ok_or("its request has no closing quote")?;
    let mut fields = rest.split_ascii_whitespace();
    let status = fields.next().ok_or("it has no status")?;
    // The bytes of the answer come before what is looked for.
    let last = fields.skip(1).last().map(|text| text.trim_matches('"'));
    Ok(Entry { time, request, status, last })
}

/// Splits behind the closing quote; escaped ones do not close.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let check = |rest: &str, expected: Result<(&str, &str, Option<&str>), &'static str>| {
            let line = format!("10.0.0.1 - me [10/Oct/2000:13:55:36 -0700] {rest}");
            let found = parse(&line).map(|entry| (entry.request, entry.status, entry.last));
            assert_eq!(found, expected, "{rest}");
        };
        check("\"GET / HTTP/1.1\" 200 12", Ok(("GET / HTTP/1.1", "200", None)));
        check("\"GET / HTTP/1.1\" 200 12 0.123", Ok(("GET / HTTP/1.1", "200", Some("0.123"))));
        check(
            "\"GET / HTTP/1.1\" 200 - \"-\" \"a b\" \"0.1\"",
            Ok(("GET / HTTP/1.1", "200", Some("0.1"))),
        );
        check("\"GET /\\\"x HTTP/1.1\" 404 0", Ok(("GET /\\\"x HTTP/1.1", "404", None)));
        check("\"\\x16\\x03\" 400 0", Ok(("\\x16\\x03", "400", None)));
        check("\"GET / 200", Err("its request has no closing quote"));
        check("GET / 200", Err("it has no request in quotes"));
        check("\"GET /\"", Err("it has no status"));
        assert_eq!(parse("hello"), Err("it has no time in brackets"));
    }

    #[test]
    fn whole_numbers_are_no_times_unless_a_unit_is_said() {
        assert_eq!(service("8080", None), Length::Nothing);
        assert_eq!(service("8", Some(Unit::Millis)), length("0.008", Unit::Seconds));
        assert_eq!(service("0.008", None), length("8", Unit::Millis));
        assert_eq!(service("8ms", None), length("8", Unit::Millis));
        assert_eq!(service("gzip", None), Length::Bad);
    }
}
