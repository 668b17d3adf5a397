//! How entries lie in the file that is being written: one after the other, as short numbers.
//!
//! Cheap to write and to cut: after a crash everything up to the first entry that is not whole is read. The
//! form is this program's own and lives until the file is sorted; what is kept longer is a trace.

use std::time::Duration;

use glowplug_core::auto::{Budget, Settings};
use glowplug_core::decision::StartCause;
use glowplug_core::request::{Mode, Priority};
use glowplug_core::spec::{Policy, Scaling};
use glowplug_core::{AppId, Timestamp};
use glowplug_sim::trace::{App, Request, Start, Stop};

use super::tape::Entry;

/// The first bytes of such a file; the last one counts the changes of the form.
pub(super) const MAGIC: [u8; 4] = *b"gpl\x01";

// No tag is 0, which is what a disk leaves where nothing was written.
const REQUEST: u8 = 1;
const START: u8 = 2;
const STOP: u8 = 3;
const APP: u8 = 4;
/// An app, and behind it what it aims for: its policy is `auto`.
const AUTO_APP: u8 = 5;

/// Bits of a request's flags.
const QUEUED: u64 = 1;
const LOW: u64 = 2;

/// Appends an entry.
pub(super) fn put(entry: &Entry, into: &mut Vec<u8>) {
    match entry {
        Entry::Request(request) => put_request(request, into),
        Entry::Start(start) => {
            into.push(START);
            let cause = StartCause::ALL.iter().position(|cause| *cause == start.cause);
            number(start.at.as_micros(), into);
            number(u64::from(start.app), into);
            number(cause.unwrap_or_default() as u64, into);
            span(start.pending, into);
            maybe(start.pull.map(micros), into);
            span(start.setup, into);
            number(u64::from(start.ready), into);
        }
        Entry::Stop(stop) => {
            into.push(STOP);
            number(stop.at.as_micros(), into);
            number(u64::from(stop.app), into);
            text(&stop.reason, into);
            span(stop.lived, into);
            number(stop.served, into);
        }
        Entry::App(declared) => {
            let (id, app) = &**declared;
            let scaling = app.scaling.unwrap_or_default();
            into.push(if scaling.policy == Policy::Fixed { APP } else { AUTO_APP });
            number(u64::from(id.0), into);
            text(&app.name, into);
            text(app.machine_type.as_deref().unwrap_or_default(), into);
            put_scaling(&scaling, into);
            if let Policy::Auto(settings) = &scaling.policy {
                put_settings(settings, into);
            }
        }
    }
}

fn put_request(request: &Request, into: &mut Vec<u8>) {
    let queued = if request.mode == Mode::Queued { QUEUED } else { 0 };
    let low = if request.priority == Priority::Low { LOW } else { 0 };
    into.push(REQUEST);
    number(request.at.as_micros(), into);
    number(u64::from(request.app), into);
    number(queued | low, into);
    maybe(request.start_within.map(micros), into);
    maybe(request.service.map(micros), into);
    maybe(request.waited.map(micros), into);
    number(u64::from(request.attempts), into);
    maybe(request.status.map(u64::from), into);
}

fn put_scaling(scaling: &Scaling, into: &mut Vec<u8>) {
    span(scaling.keep_alive, into);
    number(u64::from(scaling.min_concurrency), into);
    maybe(scaling.max_concurrency.map(u64::from), into);
    number(u64::from(scaling.concurrency_buffer), into);
    number(u64::from(scaling.concurrency_buffer_perc), into);
    span(scaling.scaling_delay, into);
    number(u64::from(scaling.max_multiplexing), into);
    span(scaling.startup_timeout, into);
    span(scaling.request_timeout, into);
    maybe(scaling.unused_runner_timeout.map(micros), into);
    span(scaling.termination_grace_period, into);
}

fn put_settings(settings: &Settings, into: &mut Vec<u8>) {
    number(settings.wait_price.to_bits(), into);
    maybe(settings.budget.map(|budget| micros(budget.wait)), into);
    number(settings.budget.map_or(0, |budget| budget.share.to_bits()), into);
    span(settings.keep_max, into);
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn number(mut value: u64, into: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        if value == 0 {
            into.push(low);
            return;
        }
        into.push(low | 0x80);
    }
}

/// Nothing is 0, and a value one more than itself.
fn maybe(value: Option<u64>, into: &mut Vec<u8>) {
    number(value.map_or(0, |value| value.saturating_add(1)), into);
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn span(span: Duration, into: &mut Vec<u8>) {
    number(micros(span), into);
}

fn text(text: &str, into: &mut Vec<u8>) {
    number(text.len() as u64, into);
    into.extend_from_slice(text.as_bytes());
}

/// All entries up to the first that is not whole.
pub(super) fn read(file: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let Some(rest) = file.strip_prefix(&MAGIC) else { return entries };
    let mut bytes = Bytes(rest);
    while let Some(entry) = bytes.entry() {
        entries.push(entry);
    }
    entries
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn entry(&mut self) -> Option<Entry> {
        Some(match self.byte()? {
            REQUEST => Entry::Request(self.request()?),
            START => Entry::Start(Box::new(Start {
                at: self.at()?,
                app: self.small()?,
                cause: *StartCause::ALL.get(usize::try_from(self.number()?).ok()?)?,
                pending: self.span()?,
                pull: self.maybe()?.map(Duration::from_micros),
                setup: self.span()?,
                ready: self.number()? != 0,
            })),
            STOP => Entry::Stop(Box::new(Stop {
                at: self.at()?,
                app: self.small()?,
                reason: self.text()?,
                lived: self.span()?,
                served: self.number()?,
            })),
            tag @ (APP | AUTO_APP) => {
                let id = AppId(self.small()?);
                let name = self.text()?;
                let machine_type = Some(self.text()?).filter(|name| !name.is_empty());
                let mut scaling = self.scaling()?;
                if tag == AUTO_APP {
                    scaling.policy = Policy::Auto(self.settings()?);
                }
                Entry::App(Box::new((id, App { name, scaling: Some(scaling), machine_type })))
            }
            _ => return None,
        })
    }

    fn request(&mut self) -> Option<Request> {
        let (at, app, flags) = (self.at()?, self.small()?, self.number()?);
        Some(Request {
            at,
            app,
            mode: if flags & QUEUED == 0 { Mode::Direct } else { Mode::Queued },
            priority: if flags & LOW == 0 { Priority::Normal } else { Priority::Low },
            start_within: self.maybe()?.map(Duration::from_micros),
            service: self.maybe()?.map(Duration::from_micros),
            waited: self.maybe()?.map(Duration::from_micros),
            attempts: self.small()?,
            status: match self.maybe()? {
                Some(status) => Some(u16::try_from(status).ok()?),
                None => None,
            },
        })
    }

    fn scaling(&mut self) -> Option<Scaling> {
        Some(Scaling {
            policy: Policy::Fixed,
            keep_alive: self.span()?,
            min_concurrency: self.small()?,
            max_concurrency: match self.maybe()? {
                Some(cap) => Some(u32::try_from(cap).ok()?),
                None => None,
            },
            concurrency_buffer: self.small()?,
            concurrency_buffer_perc: self.small()?,
            scaling_delay: self.span()?,
            max_multiplexing: self.small()?,
            startup_timeout: self.span()?,
            request_timeout: self.span()?,
            unused_runner_timeout: self.maybe()?.map(Duration::from_micros),
            termination_grace_period: self.span()?,
            frozen_for: None,
        })
    }

    fn settings(&mut self) -> Option<Settings> {
        let wait_price = f64::from_bits(self.number()?);
        let wait = self.maybe()?.map(Duration::from_micros);
        let share = f64::from_bits(self.number()?);
        let budget = wait.map(|wait| Budget { wait, share });
        Some(Settings { wait_price, budget, keep_max: self.span()? })
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn small(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    #[expect(clippy::option_option, reason = "the file may end, and the value may be nothing")]
    fn maybe(&mut self) -> Option<Option<u64>> {
        Some(self.number()?.checked_sub(1))
    }

    fn at(&mut self) -> Option<Timestamp> {
        self.number().map(Timestamp::from_micros)
    }

    fn span(&mut self) -> Option<Duration> {
        self.number().map(Duration::from_micros)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Entry> {
        let at = Timestamp::from_micros(1_759_400_000_123_456);
        let app = App {
            name: "local/grün".into(),
            scaling: Some(Scaling { max_concurrency: Some(3), ..Scaling::default() }),
            machine_type: Some("GPU-H100".into()),
        };
        let request = Request::new(at, 7, Some(Duration::from_micros(1)));
        let budget = Budget { wait: Duration::from_secs(2), share: 0.05 };
        let settings = Settings { wait_price: 7.5, budget: Some(budget), ..Settings::default() };
        let auto = |settings| App {
            name: "local/auto".into(),
            scaling: Some(Scaling { policy: Policy::Auto(settings), ..Scaling::default() }),
            machine_type: None,
        };
        vec![
            Entry::App(Box::new((AppId(8), auto(settings)))),
            Entry::App(Box::new((AppId(9), auto(Settings::default())))),
            Entry::App(Box::new((AppId(7), app))),
            Entry::Request(request),
            Entry::Request(Request {
                mode: Mode::Direct,
                priority: Priority::Low,
                start_within: Some(Duration::ZERO),
                service: None,
                waited: Some(Duration::from_hours(24)),
                attempts: 10,
                status: Some(u16::MAX),
                ..request
            }),
            Entry::Start(Box::new(Start {
                at,
                app: 7,
                cause: StartCause::Adopted,
                pending: Duration::ZERO,
                pull: Some(Duration::from_secs(1)),
                setup: Duration::from_secs(40),
                ready: true,
            })),
            Entry::Stop(Box::new(Stop {
                at,
                app: 7,
                reason: "keep_alive".into(),
                lived: Duration::from_secs(100),
                served: u64::MAX,
            })),
        ]
    }

    fn written(entries: &[Entry]) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        for entry in entries {
            put(entry, &mut file);
        }
        file
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read(&written(&samples())), samples());
    }

    #[test]
    fn a_file_that_was_cut_is_read_up_to_there() {
        let all = samples();
        let mut whole = Vec::new();
        for end in MAGIC.len()..=written(&all).len() {
            let entries = read(&written(&all)[..end]);
            assert_eq!(entries, all[..entries.len()], "cut at {end}");
            whole.push(entries.len());
        }
        assert!(whole.is_sorted());
        assert_eq!((whole[0], whole.last()), (0, Some(&all.len())));
    }

    #[test]
    fn what_is_no_entry_ends_the_reading() {
        let mut file = written(&samples());
        file.extend([0; 40]);
        assert_eq!(read(&file), samples());
        assert_eq!(read(b"something else"), []);
        assert_eq!(read(b""), []);
    }
}
