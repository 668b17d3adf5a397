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

/// A fault is big and rare. Behind a pointer it costs nothing where there is none.
pub(super) type Parsed<T> = Result<T, Box<Fault>>;

/// `None`: a record of a kind that came after this program.
pub(super) fn parse(line: &[u8], unknown: Unknown) -> Parsed<Option<Record>> {
    let mut fields = Fields { rest: line.get(2..).unwrap_or_default(), over: line.len() < 3 };
    let record = match line {
        [b'r', b' ', ..] => Record::Request(request(&mut fields)?),
        [b's', b' ', ..] => match start(&mut fields) {
            Ok(start) => Record::Start(start),
            Err(fault) if unknown == Unknown::Skipped && matches!(*fault, Fault::Cause(_)) => {
                return Ok(None);
            }
            Err(fault) => return Err(fault),
        },
        [b'e', b' ', ..] => Record::Stop(stop(&mut fields)?),
        [b'a', b' ', json @ ..] => return Ok(Some(Record::App(App::parse(json)?))),
        [b'a'..=b'z', b' ', ..] if unknown == Unknown::Skipped => return Ok(None),
        _ => {
            let text = String::from_utf8_lossy(&line[..line.len().min(4)]);
            return Err(Fault::Record(text.chars().next().unwrap_or(' ')).into());
        }
    };
    if fields.over || unknown == Unknown::Skipped {
        Ok(Some(record))
    } else {
        Err(Fault::Surplus.into())
    }
}

fn request(fields: &mut Fields<'_>) -> Parsed<Request> {
    let at = Timestamp::from_micros(fields.micros("at")?);
    let app = fields.small("app")?;
    let (mode, priority) = match fields.needed("mode")? {
        b"q" => (Mode::Queued, Priority::Normal),
        b"d" => (Mode::Direct, Priority::Normal),
        b"ql" => (Mode::Queued, Priority::Low),
        b"dl" => (Mode::Direct, Priority::Low),
        other => {
            return Err(Fault::field("mode", other, "and must be `q`, `d`, `ql` or `dl`").into());
        }
    };
    Ok(Request {
        at,
        app,
        mode,
        priority,
        service: fields.span_if_known("service")?,
        waited: fields.span_if_known("waited")?,
        attempts: if fields.over { 1 } else { fields.small("attempts")? },
        status: match fields.number_if_known("status")? {
            None => None,
            Some(status) => match u16::try_from(status) {
                Ok(status) => Some(status),
                Err(_) => return Err(no_number("status", status.to_string().as_bytes()).into()),
            },
        },
        start_within: fields.span_if_known("start_within")?,
    })
}

fn start(fields: &mut Fields<'_>) -> Parsed<Start> {
    Ok(Start {
        at: Timestamp::from_micros(fields.micros("at")?),
        app: fields.small("app")?,
        cause: {
            let label = fields.needed("cause")?;
            let cause = StartCause::ALL.into_iter().find(|cause| cause.label().as_bytes() == label);
            cause.ok_or_else(|| Fault::Cause(String::from_utf8_lossy(label).into_owned()))?
        },
        pending: fields.span("pending")?,
        pull: {
            let missing = fields.over;
            let pull = fields.span_if_known("pull")?;
            if missing { Err(Fault::Missing("pull"))? } else { pull }
        },
        setup: fields.span("setup")?,
        ready: match fields.needed("ready")? {
            b"1" => true,
            b"0" => false,
            other => return Err(Fault::field("ready", other, "and must be 1 or 0").into()),
        },
    })
}

fn stop(fields: &mut Fields<'_>) -> Parsed<Stop> {
    Ok(Stop {
        at: Timestamp::from_micros(fields.micros("at")?),
        app: fields.small("app")?,
        reason: reason(fields.needed("reason")?)?.to_owned(),
        lived: fields.span("lived")?,
        served: fields.number("served")?,
    })
}

/// A label: what a metric may be called.
fn reason(text: &[u8]) -> Result<&str, Fault> {
    let label = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
    let fine = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.iter().all(label);
    let text = if fine { std::str::from_utf8(text).ok() } else { None }.ok_or(text);
    text.map_err(|text| Fault::field("reason", text, "and must be of a-z, 0-9 and _"))
}

/// What is left of a line.
struct Fields<'a> {
    rest: &'a [u8],
    over: bool,
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.over {
            return None;
        }
        let end = self.rest.iter().position(|byte| *byte == b' ').unwrap_or(self.rest.len());
        let field = &self.rest[..end];
        self.skip(end);
        Some(field)
    }

    /// Goes behind the space at `end`, if there is one.
    fn skip(&mut self, end: usize) {
        match self.rest.get(end + 1..) {
            Some(rest) => self.rest = rest,
            None => self.over = true,
        }
    }

    fn needed(&mut self, name: &'static str) -> Parsed<&'a [u8]> {
        match self.next() {
            Some(field) => Ok(field),
            None => Err(Fault::Missing(name).into()),
        }
    }

    fn number(&mut self, name: &'static str) -> Parsed<u64> {
        match self.plain_number() {
            Some(number) => Ok(number),
            None => any_number(self.needed(name)?, name),
        }
    }

    /// The way of nearly all numbers: finds the field's end while reading it. `None`: nothing was taken.
    fn plain_number(&mut self) -> Option<u64> {
        /// As many digits cannot overflow.
        const DIGITS_MAX: usize = 19;
        let (mut value, mut end) = (0_u64, 0);
        while let Some(digit) = self.rest.get(end).map(|byte| byte.wrapping_sub(b'0'))
            && digit <= 9
        {
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
            end += 1;
        }
        let whole = matches!(self.rest.get(end), None | Some(b' '));
        if self.over || !whole || !(1..=DIGITS_MAX).contains(&end) {
            return None;
        }
        self.skip(end);
        Some(value)
    }

    fn number_if_known(&mut self, name: &'static str) -> Parsed<Option<u64>> {
        if let Some(number) = self.plain_number() {
            return Ok(Some(number));
        }
        match self.next() {
            None | Some(b"-") => Ok(None),
            Some(text) => any_number(text, name).map(Some),
        }
    }

    fn micros(&mut self, name: &'static str) -> Parsed<u64> {
        let micros = self.number(name)?;
        within(Duration::from_micros(micros), name)?;
        Ok(micros)
    }

    fn span(&mut self, name: &'static str) -> Parsed<Duration> {
        self.micros(name).map(Duration::from_micros)
    }

    fn small(&mut self, name: &'static str) -> Parsed<u32> {
        let number = self.number(name)?;
        u32::try_from(number).map_err(|_| no_number(name, number.to_string().as_bytes()).into())
    }

    fn span_if_known(&mut self, name: &'static str) -> Parsed<Option<Duration>> {
        let Some(micros) = self.number_if_known(name)? else { return Ok(None) };
        let span = Duration::from_micros(micros);
        within(span, name)?;
        Ok(Some(span))
    }
}

/// Also one of 20 digits.
#[cold]
fn any_number(text: &[u8], name: &'static str) -> Parsed<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text_of_digits = if digits { std::str::from_utf8(text).ok() } else { None };
    let number = text_of_digits.and_then(|text| text.parse().ok());
    number.ok_or_else(|| no_number(name, text).into())
}

#[cold]
fn no_number(name: &'static str, text: &[u8]) -> Fault {
    Fault::field(name, text, "which is no whole number in range")
}

fn within(span: Duration, field: &'static str) -> Parsed<()> {
    if span > TIME_MAX { Err(Fault::TooLate { field, found: span }.into()) } else { Ok(()) }
}

/// Appends the record's line with its end.
pub(super) fn format(record: &Record, into: &mut Vec<u8>) -> Parsed<()> {
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
fn format_request(request: &Request, into: &mut Vec<u8>) -> Parsed<()> {
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

fn push_if_known(into: &mut Vec<u8>, span: Option<Duration>, name: &'static str) -> Parsed<()> {
    if let Some(span) = span {
        return push_span(into, span, name);
    }
    push_text(into, b"-");
    Ok(())
}

fn push_span(into: &mut Vec<u8>, span: Duration, name: &'static str) -> Parsed<()> {
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
