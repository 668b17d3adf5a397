//! A trace in memory, ready to be simulated many times at once.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::request::{Mode, Priority};
use glowplug_core::spec::Scaling;

use super::Error;
use super::phases::Samples;
use super::result::{Part, Profile};
use crate::model;
use crate::trace::{Record, Request};
use crate::traffic::Arrival;

/// Requests of one plan, 16 bytes each: 800 MB. More must be narrowed.
pub const REQUESTS_MAX: usize = 50_000_000;
/// Apps of one plan.
pub const APPS_MAX: usize = 100_000;
/// Buckets of a profile.
const PROFILE_BUCKETS_MAX: f64 = 500.0;
/// Lengths of a profile's buckets, in seconds; the shortest that suffices is taken.
const PROFILE_BUCKETS_SECS: [u32; 9] =
    [1, 60, 300, 900, 3_600, 3 * 3_600, 6 * 3_600, 24 * 3_600, 7 * 24 * 3_600];

/// Which part of a trace is planned for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Requests before are left out; it becomes the beginning.
    pub from: Option<Duration>,
    /// Requests from here on are left out.
    pub until: Option<Duration>,
    /// Names of apps, the owner `local/` may be left out; a `*` at the end stands for anything. Empty: all.
    pub apps: Vec<String>,
    /// Share of apps to keep, from 0 to 1. Whole apps, since an app's gaps are what is planned for.
    pub sample: Option<f64>,
}

/// Requests, and what is known of their apps. Cloning shares the requests.
#[derive(Clone, Debug)]
pub struct Traffic {
    requests: Arc<[Packed]>,
    deadlines: Arc<[Duration]>,
    /// Those that count.
    range: Range<usize>,
    from: Timestamp,
    until: Timestamp,
    apps: Arc<[TracedApp]>,
    notes: Arc<[String]>,
}

/// Traffic, and the moment from which on it counts: before, it warms up whoever learns from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course<'a> {
    pub(super) traffic: &'a Traffic,
    pub(super) count_from: Timestamp,
}

impl<'a> Course<'a> {
    pub(super) fn whole(traffic: &'a Traffic) -> Self {
        Self { traffic, count_from: Timestamp::ZERO }
    }

    /// Of what counts.
    pub(super) fn span(&self) -> Duration {
        self.traffic.span().saturating_sub(self.count_from - Timestamp::ZERO)
    }
}

/// An app as the trace knows it.
#[derive(Clone, Debug)]
pub struct TracedApp {
    pub name: String,
    pub scaling: Option<Scaling>,
    pub machine_type: Option<String>,
    pub(super) setup: Samples,
    pub(super) pull: Samples,
    pub(super) service: Samples,
}

#[derive(Clone, Copy, Debug)]
struct Packed {
    at: Timestamp,
    /// From the lowest bit: 20 of the app, one if direct, one if of low priority, the others which of the
    /// deadlines, from 1.
    bits: u32,
    /// Not a number: not known.
    service_secs: f32,
}

const APP_BITS: u32 = 20;
const DIRECT: u32 = 1 << APP_BITS;
const LOW: u32 = DIRECT << 1;
const DEADLINE_SHIFT: u32 = APP_BITS + 2;
/// Deadlines of different lengths; a further one is taken for the nearest of them.
const DEADLINES_MAX: usize = (1 << (u32::BITS - DEADLINE_SHIFT)) - 1;

impl Packed {
    fn new(request: &Request, app: u32, deadlines: &mut Vec<Duration>) -> Self {
        let mode = if request.mode == Mode::Direct { DIRECT } else { 0 };
        let priority = if request.priority == Priority::Low { LOW } else { 0 };
        let deadline = request.start_within.map_or(0, |limit| place(deadlines, limit) + 1);
        let service_secs = request.service.map_or(f32::NAN, |service| service.as_secs_f32());
        let bits = app | mode | priority | (deadline << DEADLINE_SHIFT);
        Self { at: request.at, bits, service_secs }
    }

    fn app(self) -> u32 {
        self.bits & (DIRECT - 1)
    }

    fn arrival(self, beginning: Timestamp, deadlines: &[Duration]) -> Arrival {
        let service = (!self.service_secs.is_nan())
            .then(|| Duration::try_from_secs_f32(self.service_secs).unwrap_or_default());
        let deadline = (self.bits >> DEADLINE_SHIFT).checked_sub(1);
        Arrival {
            mode: if self.bits & DIRECT == 0 { Mode::Queued } else { Mode::Direct },
            priority: if self.bits & LOW == 0 { Priority::Normal } else { Priority::Low },
            start_within: deadline.and_then(|place| deadlines.get(place as usize).copied()),
            ..Arrival::new(Timestamp::ZERO + self.at.since(beginning), self.app(), service)
        }
    }
}

/// Of a deadline among those there are, or are now.
fn place(deadlines: &mut Vec<Duration>, limit: Duration) -> u32 {
    let place = deadlines.iter().position(|known| *known == limit).unwrap_or_else(|| {
        if deadlines.len() < DEADLINES_MAX {
            deadlines.push(limit);
            return deadlines.len() - 1;
        }
        let distance = |at: &usize| deadlines[*at].abs_diff(limit);
        (0..deadlines.len()).min_by_key(distance).unwrap_or(0)
    });
    u32::try_from(place).unwrap_or(0)
}

impl Traffic {
    /// Reads a trace and keeps what the filter lets through.
    pub fn read<E>(
        records: impl IntoIterator<Item = Result<Record, E>>,
        filter: &Filter,
    ) -> Result<Self, Error>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let mut reading = Reading::new(filter)?;
        for record in records {
            reading.take(record.map_err(|error| Error::Trace(Box::new(error)))?)?;
        }
        reading.finish()
    }

    pub fn apps(&self) -> &[TracedApp] {
        &self.apps
    }

    /// What a reader must know about how it was read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    pub fn requests(&self) -> u64 {
        self.range.len() as u64
    }

    /// From the beginning to the last arrival, or to where the next part begins.
    pub fn span(&self) -> Duration {
        self.until.since(self.from)
    }

    /// The requests in order, from time 0 on.
    pub fn arrivals(&self) -> impl Iterator<Item = Arrival> + '_ {
        self.packed().iter().map(|packed| packed.arrival(self.from, &self.deadlines))
    }

    /// Only the apps with at most so many requests.
    #[must_use]
    pub fn with_at_most(&self, requests_max: u64) -> Self {
        let counts = self.requests_by_app();
        let mut apps = Vec::new();
        // The index of each app among those kept.
        let mut kept = Vec::new();
        for (app, count) in self.apps.iter().zip(counts) {
            let is_kept = (1..=requests_max).contains(&count);
            kept.push(is_kept.then(|| u32::try_from(apps.len()).unwrap_or(u32::MAX)));
            apps.extend(is_kept.then(|| app.clone()));
        }
        let moved = |packed: &Packed| {
            let app = kept[packed.app() as usize]?;
            Some(Packed { bits: packed.bits & !(DIRECT - 1) | app, ..*packed })
        };
        let requests: Vec<Packed> = self.packed().iter().filter_map(moved).collect();
        Self {
            range: 0..requests.len(),
            requests: requests.into(),
            apps: apps.into(),
            ..self.clone()
        }
    }

    pub(super) fn requests_by_app(&self) -> Vec<u64> {
        let mut counts = vec![0; self.apps.len()];
        for packed in self.packed() {
            counts[packed.app() as usize] += 1;
        }
        counts
    }

    fn packed(&self) -> &[Packed] {
        &self.requests[self.range.clone()]
    }

    /// The parts before and from a share of the span on.
    pub(super) fn split(&self, share: f64) -> (Self, Self) {
        let middle = self.from + self.span().mul_f64(share.clamp(0.0, 1.0));
        (self.between(self.from, middle), self.between(middle, self.until))
    }

    /// Where so many parts of equal length meet, since the beginning.
    pub(super) fn edges(&self, parts: u32) -> Vec<Timestamp> {
        (1..parts).map(|nth| Timestamp::ZERO + self.span() * nth / parts).collect()
    }

    /// Requests from one moment up to another, which belongs to it only at the traffic's end.
    fn between(&self, from: Timestamp, until: Timestamp) -> Self {
        let position = |moment: Timestamp| {
            self.range.start + self.packed().partition_point(|packed| packed.at < moment)
        };
        let end = if until == self.until { self.range.end } else { position(until) };
        Self { range: position(from)..end, from, until, ..self.clone() }
    }

    pub(super) fn part(&self, whole: &Self) -> Part {
        Part {
            from_secs: self.from.since(whole.from).as_secs_f64(),
            until_secs: self.until.since(whole.from).as_secs_f64(),
            requests: self.requests(),
        }
    }

    pub(super) fn profile(&self) -> Profile {
        let span_secs = self.span().as_secs_f64();
        let fits = |secs: &&u32| span_secs / f64::from(**secs) < PROFILE_BUCKETS_MAX;
        let longest = PROFILE_BUCKETS_SECS[PROFILE_BUCKETS_SECS.len() - 1];
        let bucket_secs =
            PROFILE_BUCKETS_SECS.iter().find(fits).map_or(f64::from(longest), |s| f64::from(*s));
        let bucket_micros = Duration::from_secs_f64(bucket_secs).as_micros();
        let mut requests = Vec::new();
        for packed in self.packed() {
            let bucket = packed.at.since(self.from).as_micros() / bucket_micros;
            let bucket = usize::try_from(bucket).unwrap_or(usize::MAX).min(PROFILE_END);
            if requests.len() <= bucket {
                requests.resize(bucket + 1, 0);
            }
            requests[bucket] += 1;
        }
        Profile { bucket_secs, requests }
    }
}

/// The last bucket of any profile; what is later, after centuries, is counted there.
const PROFILE_END: usize = 9_999;

/// A trace while it is read.
struct Reading<'a> {
    filter: &'a Filter,
    from: Timestamp,
    until: Timestamp,
    /// By index in the trace: the index among those kept.
    kept: Vec<Option<u32>>,
    apps: Vec<TracedApp>,
    requests: Vec<Packed>,
    deadlines: Vec<Duration>,
    /// Requests of the trace, kept or not.
    seen: u64,
    last: Timestamp,
    failed_starts: u64,
}

impl<'a> Reading<'a> {
    fn new(filter: &'a Filter) -> Result<Self, Error> {
        let moment = |span: Option<Duration>| span.map(|span| Timestamp::ZERO + span);
        let (from, until) = (moment(filter.from), moment(filter.until));
        if let (Some(from), Some(until)) = (from, until)
            && from >= until
        {
            return Err(Error::EmptySpan);
        }
        if filter.sample.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
            return Err(Error::Sample);
        }
        Ok(Self {
            filter,
            from: from.unwrap_or_default(),
            until: until.unwrap_or(Timestamp::MAX),
            kept: Vec::new(),
            apps: Vec::new(),
            requests: Vec::new(),
            deadlines: Vec::new(),
            seen: 0,
            last: Timestamp::ZERO,
            failed_starts: 0,
        })
    }

    fn take(&mut self, record: Record) -> Result<(), Error> {
        match record {
            Record::App(app) => self.app(app),
            Record::Request(request) => self.request(&request),
            Record::Start(start) => {
                let Some(app) = self.kept_app(start.app)? else { return Ok(()) };
                let app = &mut self.apps[app as usize];
                if start.ready {
                    app.setup.add(start.setup);
                    start.pull.into_iter().for_each(|pull| app.pull.add(pull));
                } else {
                    self.failed_starts += 1;
                }
                Ok(())
            }
            Record::Stop(_) => Ok(()),
        }
    }

    fn app(&mut self, app: crate::trace::App) -> Result<(), Error> {
        let wanted = self.wants(&app.name);
        if wanted && self.apps.len() == APPS_MAX {
            return Err(Error::TooManyApps);
        }
        self.kept.push(wanted.then(|| u32::try_from(self.apps.len()).unwrap_or(u32::MAX)));
        if wanted {
            self.apps.push(TracedApp {
                name: app.name,
                scaling: app.scaling,
                machine_type: app.machine_type,
                setup: Samples::default(),
                pull: Samples::default(),
                service: Samples::default(),
            });
        }
        Ok(())
    }

    fn wants(&self, name: &str) -> bool {
        let patterns = &self.filter.apps;
        (patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, name)))
            && self.filter.sample.is_none_or(|share| share_of(name) < share)
    }

    fn kept_app(&self, app: u32) -> Result<Option<u32>, Error> {
        self.kept.get(app as usize).copied().ok_or(Error::UnknownApp { app })
    }

    fn request(&mut self, request: &Request) -> Result<(), Error> {
        self.seen += 1;
        if request.at < self.last {
            return Err(Error::Unsorted { number: self.seen });
        }
        self.last = request.at;
        let Some(app) = self.kept_app(request.app)? else { return Ok(()) };
        if let Some(service) = request.service {
            self.apps[app as usize].service.add(service);
        }
        if !(self.from..self.until).contains(&request.at) {
            return Ok(());
        }
        if self.requests.len() == REQUESTS_MAX {
            return Err(Error::TooManyRequests);
        }
        self.requests.push(Packed::new(request, app, &mut self.deadlines));
        Ok(())
    }

    fn finish(self) -> Result<Traffic, Error> {
        if self.seen == 0 {
            return Err(Error::NoRequests);
        }
        for pattern in &self.filter.apps {
            if !self.apps.iter().any(|app| matches(pattern, &app.name)) {
                return Err(Error::NoSuchApp { pattern: pattern.clone() });
            }
        }
        let Some(last) = self.requests.last() else { return Err(Error::Empty) };
        let mut notes = Vec::new();
        if let Some(share) = self.filter.sample {
            notes.push(format!(
                "{} of {} apps, a sample of {:.0} %: costs are of these alone",
                self.apps.len(),
                self.kept.len(),
                share * 100.0
            ));
        }
        if self.failed_starts > 0 {
            notes.push(format!(
                "{} recorded starts that failed are not simulated: every simulated start succeeds",
                self.failed_starts
            ));
        }
        let until = last.at.max(self.from);
        Ok(Traffic {
            range: 0..self.requests.len(),
            from: self.from,
            until,
            requests: self.requests.into(),
            deadlines: self.deadlines.into(),
            apps: self.apps.into(),
            notes: notes.into(),
        })
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    let fits = |name: &str| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    };
    fits(name) || name.strip_prefix("local/").is_some_and(fits)
}

/// A number from 0 to 1 that is always the same for a name.
fn share_of(name: &str) -> f64 {
    model::share_of(name.bytes().fold(0, |hash, byte| model::mix(hash ^ u64::from(byte))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_apps() {
        for (pattern, name, expected) in [
            ("local/a", "local/a", true),
            ("a", "local/a", true),
            ("a", "team/a", false),
            ("a", "local/ab", false),
            ("a*", "local/ab", true),
            ("team/*", "team/a", true),
            ("*", "team/a", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_request_takes_16_bytes_and_loses_nothing() {
        assert_eq!(size_of::<Packed>(), 16);
        const { assert!(APPS_MAX <= 1 << APP_BITS) };
        let mut deadlines = Vec::new();
        for (nth, app) in (0..2_000_u64).zip([0, 1, 99_999].into_iter().cycle()) {
            let arrival = Arrival {
                mode: if nth % 2 == 0 { Mode::Direct } else { Mode::Queued },
                priority: if nth % 3 == 0 { Priority::Low } else { Priority::Normal },
                start_within: (nth % 5 > 0).then(|| Duration::from_secs(nth % 500)),
                ..Arrival::new(Timestamp::from_secs(nth), app, Some(Duration::from_millis(500)))
            };
            let request = Request {
                at: arrival.at,
                app,
                mode: arrival.mode,
                priority: arrival.priority,
                start_within: arrival.start_within,
                service: arrival.service,
                waited: None,
                attempts: 1,
                status: None,
            };
            let packed = Packed::new(&request, app, &mut deadlines);
            assert_eq!(packed.arrival(Timestamp::ZERO, &deadlines), arrival);
        }
        assert_eq!(deadlines.len(), 400);
    }

    #[test]
    fn too_many_deadlines_are_rounded() {
        let mut deadlines: Vec<Duration> =
            (0..DEADLINES_MAX as u64).map(Duration::from_secs).collect();
        assert_eq!(place(&mut deadlines, Duration::from_millis(7_400)), 7);
        assert_eq!(deadlines.len(), DEADLINES_MAX);
    }

    #[test]
    fn samples_are_of_about_their_size() {
        let kept = (0..10_000).filter(|n| share_of(&format!("local/app-{n}")) < 0.1).count();
        assert!((850..1_150).contains(&kept), "{kept}");
    }
}
