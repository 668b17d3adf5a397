//! One line to one record and back. Requests are most of every trace, so theirs takes no memory.
//!
//! Fields are apart by one space; `-` stands for what is not known. Times are whole microseconds.

use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::decision::StartCause;
use glowplug_core::request::{Mode, Priority};

use super::error::Fault;
use super::header::Unknown;
use super::limits::{NAME_BYTES_MAX, TIME_MAX};
use super::{App, Record, Request, Start, Stop};

const NUMBER: &str = "which is no whole number in range";

/// `None`: a record of a kind that came after this program.
pub(super) fn parse(line: &[u8], unknown: Unknown) -> Result<Option<Record>, Fault> {
    if let [b'a', b' ', json @ ..] = line {
        return App::parse(json).map(|app| Some(Record::App(app)));
    }
    let mut fields = Fields { rest: line.get(2..).unwrap_or_default(), over: line.len() < 3 };
    let record = match line {
        [b'r', b' ', ..] => Record::Request(request(&mut fields)?),
        [b's', b' ', ..] => Record::Start(start(&mut fields)?),
        [b'e', b' ', ..] => Record::Stop(stop(&mut fields)?),
        [b'a'..=b'z', b' ', ..] if unknown == Unknown::Skipped => return Ok(None),
        _ => {
            let text = String::from_utf8_lossy(&line[..line.len().min(4)]);
            return Err(Fault::Record(text.chars().next().unwrap_or(' ')));
        }
    };
    if fields.over || unknown == Unknown::Skipped { Ok(Some(record)) } else { Err(Fault::Surplus) }
}

fn request(fields: &mut Fields<'_>) -> Result<Request, Fault> {
    let at = Timestamp::from_micros(fields.micros("at")?);
    let app = fields.small("app")?;
    let (mode, priority) = match fields.needed("mode")? {
        b"q" => (Mode::Queued, Priority::Normal),
        b"d" => (Mode::Direct, Priority::Normal),
        b"ql" => (Mode::Queued, Priority::Low),
        b"dl" => (Mode::Direct, Priority::Low),
        other => return Err(Fault::field("mode", other, "and must be `q`, `d`, `ql` or `dl`")),
    };
    Ok(Request {
        at,
        app,
        mode,
        priority,
        service: fields.span_if_known("service")?,
        waited: fields.span_if_known("waited")?,
        attempts: match fields.next() {
            None => 1,
            Some(text) => small(text, "attempts")?,
        },
        status: match fields.next() {
            None | Some(b"-") => None,
            Some(text) => match number(text).and_then(|number| u16::try_from(number).ok()) {
                Some(status) => Some(status),
                None => return Err(Fault::field("status", text, NUMBER)),
            },
        },
        start_within: fields.span_if_known("start_within")?,
    })
}

fn start(fields: &mut Fields<'_>) -> Result<Start, Fault> {
    Ok(Start {
        at: Timestamp::from_micros(fields.micros("at")?),
        app: fields.small("app")?,
        cause: {
            let label = fields.needed("cause")?;
            let cause = StartCause::ALL.into_iter().find(|cause| cause.label().as_bytes() == label);
            cause.ok_or_else(|| Fault::field("cause", label, "which is no cause of a start"))?
        },
        pending: fields.span("pending")?,
        pull: match fields.needed("pull")? {
            b"-" => None,
            text => Some(Duration::from_micros(micros(text, "pull")?)),
        },
        setup: fields.span("setup")?,
        ready: match fields.needed("ready")? {
            b"1" => true,
            b"0" => false,
            other => return Err(Fault::field("ready", other, "and must be 1 or 0")),
        },
    })
}

fn stop(fields: &mut Fields<'_>) -> Result<Stop, Fault> {
    Ok(Stop {
        at: Timestamp::from_micros(fields.micros("at")?),
        app: fields.small("app")?,
        reason: reason(fields.needed("reason")?)?.to_owned(),
        lived: fields.span("lived")?,
        served: {
            let text = fields.needed("served")?;
            number(text).ok_or_else(|| Fault::field("served", text, NUMBER))?
        },
    })
}

/// A label: what a metric may be called.
fn reason(text: &[u8]) -> Result<&str, Fault> {
    let label = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
    let fine = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.iter().all(label);
    let text = if fine { std::str::from_utf8(text).ok() } else { None }.ok_or(text);
    text.map_err(|text| Fault::field("reason", text, "and must be of a-z, 0-9 and _"))
}

struct Fields<'a> {
    rest: &'a [u8],
    over: bool,
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.over {
            return None;
        }
        let end = self.rest.iter().position(|byte| *byte == b' ');
        let Some(end) = end else {
            self.over = true;
            return Some(self.rest);
        };
        let field = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Some(field)
    }

    fn needed(&mut self, name: &'static str) -> Result<&'a [u8], Fault> {
        self.next().ok_or(Fault::Missing(name))
    }

    fn micros(&mut self, name: &'static str) -> Result<u64, Fault> {
        micros(self.needed(name)?, name)
    }

    fn span(&mut self, name: &'static str) -> Result<Duration, Fault> {
        self.micros(name).map(Duration::from_micros)
    }

    fn small(&mut self, name: &'static str) -> Result<u32, Fault> {
        small(self.needed(name)?, name)
    }

    fn span_if_known(&mut self, name: &'static str) -> Result<Option<Duration>, Fault> {
        match self.next() {
            None | Some(b"-") => Ok(None),
            Some(text) => micros(text, name).map(|micros| Some(Duration::from_micros(micros))),
        }
    }
}

/// `None`: it is no number, or beyond 64 bits.
fn number(text: &[u8]) -> Option<u64> {
    /// As many digits cannot overflow.
    const SAFE_DIGITS: usize = 19;
    if text.is_empty() {
        return None;
    }
    let mut value = 0_u64;
    for (at, byte) in text.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = if at < SAFE_DIGITS {
            value * 10 + u64::from(digit)
        } else {
            value.checked_mul(10)?.checked_add(u64::from(digit))?
        };
    }
    Some(value)
}

fn micros(text: &[u8], name: &'static str) -> Result<u64, Fault> {
    let micros = number(text).ok_or_else(|| Fault::field(name, text, NUMBER))?;
    within(Duration::from_micros(micros), name)?;
    Ok(micros)
}

fn small(text: &[u8], name: &'static str) -> Result<u32, Fault> {
    let number = number(text).and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| Fault::field(name, text, NUMBER))
}

fn within(span: Duration, field: &'static str) -> Result<(), Fault> {
    if span > TIME_MAX { Err(Fault::TooLate { field, found: span }) } else { Ok(()) }
}

/// Appends the record's line with its end.
pub(super) fn format(record: &Record, into: &mut Vec<u8>) -> Result<(), Fault> {
    match record {
        Record::App(app) => {
            let json = app.line()?;
            into.extend_from_slice(b"a ");
            into.extend_from_slice(json.as_bytes());
        }
        Record::Request(request) => format_request(request, into)?,
        Record::Start(start) => {
            into.push(b's');
            push_span(into, start.at - Timestamp::ZERO, "at")?;
            push_number(into, u64::from(start.app));
            push_text(into, start.cause.label().as_bytes());
            push_span(into, start.pending, "pending")?;
            push_if_known(into, start.pull, "pull")?;
            push_span(into, start.setup, "setup")?;
            push_number(into, u64::from(start.ready));
        }
        Record::Stop(stop) => {
            into.push(b'e');
            push_span(into, stop.at - Timestamp::ZERO, "at")?;
            push_number(into, u64::from(stop.app));
            push_text(into, reason(stop.reason.as_bytes())?.as_bytes());
            push_span(into, stop.lived, "lived")?;
            push_number(into, stop.served);
        }
    }
    into.push(b'\n');
    Ok(())
}

/// Fields at the end that say nothing are left out.
fn format_request(request: &Request, into: &mut Vec<u8>) -> Result<(), Fault> {
    into.push(b'r');
    push_span(into, request.at - Timestamp::ZERO, "at")?;
    push_number(into, u64::from(request.app));
    push_text(
        into,
        match (request.mode, request.priority) {
            (Mode::Queued, Priority::Normal) => b"q",
            (Mode::Direct, Priority::Normal) => b"d",
            (Mode::Queued, Priority::Low) => b"ql",
            (Mode::Direct, Priority::Low) => b"dl",
        },
    );
    let last = [
        request.service.is_some(),
        request.waited.is_some(),
        request.attempts != 1,
        request.status.is_some(),
        request.start_within.is_some(),
    ];
    let fields = last.iter().rposition(|known| *known).map_or(0, |at| at + 1);
    if fields > 0 {
        push_if_known(into, request.service, "service")?;
    }
    if fields > 1 {
        push_if_known(into, request.waited, "waited")?;
    }
    if fields > 2 {
        push_number(into, u64::from(request.attempts));
    }
    if fields > 3 {
        match request.status {
            Some(status) => push_number(into, u64::from(status)),
            None => push_text(into, b"-"),
        }
    }
    if fields > 4 {
        push_if_known(into, request.start_within, "start_within")?;
    }
    Ok(())
}

fn push_text(into: &mut Vec<u8>, text: &[u8]) {
    into.push(b' ');
    into.extend_from_slice(text);
}

fn push_if_known(
    into: &mut Vec<u8>,
    span: Option<Duration>,
    name: &'static str,
) -> Result<(), Fault> {
    if let Some(span) = span {
        return push_span(into, span, name);
    }
    push_text(into, b"-");
    Ok(())
}

fn push_span(into: &mut Vec<u8>, span: Duration, name: &'static str) -> Result<(), Fault> {
    within(span, name)?;
    push_number(into, u64::try_from(span.as_micros()).expect("100 years fit"));
    Ok(())
}

fn push_number(into: &mut Vec<u8>, number: u64) {
    const DIGITS_MAX: usize = 20;
    let mut digits = [0; DIGITS_MAX];
    let (mut rest, mut at) = (number, DIGITS_MAX);
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    push_text(into, &digits[at..]);
}
