//! What apps with `policy = "auto"` knew before: learned again from the node's own recordings.
//!
//! Learners are not stored. The recorder has all that they were made of, so what comes of it is the same
//! whatever changed in how they learn, and an app that had fixed parameters until now begins with what
//! there is of it. Limits: [`LOOK_BACK`], [`RECORDS_MAX`]; the newest count. Without recordings apps begin
//! anew, and signs that somebody is about to use an app are not recorded.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::auto::{Learner, Settings};
use glowplug_core::spec::{Overrides, Policy, Scaling};
use glowplug_sim::trace::{App as RecordedApp, Record, Request};

use crate::apps::App;
use crate::recorder::{Error, Export, app_of};
use crate::shared::Shared;

/// What came before is left out: nothing that is learned looks back further.
const LOOK_BACK: Duration = Duration::from_hours(14 * 24);
/// Requests, starts and stops of all apps together. Bounds how long the start of a node is held up.
const RECORDS_MAX: u64 = 1_000_000;

/// Teaches every app of the config that is to learn. Before they are deployed.
pub(crate) async fn all(shared: &Arc<Shared>) {
    let changed = shared.scaling.lock().await.clone();
    let aims = shared.apps.all().filter_map(|app| {
        let changed = changed.get(app.name()).copied().unwrap_or_default();
        Some((app.name().to_owned(), aims(app, changed)?))
    });
    teach(shared, aims.collect()).await;
}

/// Teaches one app that had fixed parameters until now.
pub(crate) async fn one(shared: &Arc<Shared>, app: &App, settings: Settings) {
    teach(shared, BTreeMap::from([(app.name().to_owned(), settings)])).await;
}

/// What an app aims for. No code of an app brings a policy along.
fn aims(app: &App, changed: Overrides) -> Option<Settings> {
    let scaling = changed.over(app.config.scaling).apply(Scaling::default());
    match scaling.ok()?.policy {
        Policy::Fixed => None,
        Policy::Auto(settings) => Some(settings),
    }
}

/// By the names of the apps.
type Aims = BTreeMap<String, Settings>;

async fn teach(shared: &Arc<Shared>, aims: Aims) {
    let Some(recorder) = shared.recorder.clone().filter(|_| !aims.is_empty()) else { return };
    let reading = {
        let shared = shared.clone();
        tokio::task::spawn_blocking(move || {
            let since =
                Timestamp::ZERO + (shared.desk.now() - Timestamp::ZERO).saturating_sub(LOOK_BACK);
            recorder
                .recent(&shared.desk, &shared.metrics, since, RECORDS_MAX)
                .map(|recent| learn(recent, &aims))
        })
    };
    match reading.await {
        Ok(Ok(learned)) => {
            for (name, learner) in learned {
                if let Some(app) = shared.apps.by_name(&name) {
                    shared.desk.teach(app.id, learner);
                }
            }
        }
        Ok(Err(error)) => not_recalled(&error),
        Err(error) => tracing::warn!("what was known of apps is not recalled: {error}"),
    }
}

fn not_recalled(error: &Error) {
    tracing::warn!("what was known of apps is not recalled: {error}");
}

fn learn(recent: Export, aims: &Aims) -> BTreeMap<String, Learner> {
    let (apps, records) = recent.into_records();
    let mut students: Vec<Option<Student>> =
        apps.iter().map(|app| Some(Student::new(app, aims.get(&app.name)?))).collect();
    for record in records {
        let of = app_of(&record).and_then(|app| students.get_mut(app as usize));
        let Some(student) = of.and_then(Option::as_mut) else { continue };
        match record {
            Record::Request(request) => student.request(&request),
            Record::Start(start) if start.ready => {
                let took = start.pending + start.pull.unwrap_or_default() + start.setup;
                student.learner.started(took);
            }
            Record::Start(_) | Record::Stop(_) | Record::App(_) => {}
        }
    }
    let learned = apps.into_iter().zip(students);
    learned.filter_map(|(app, student)| Some((app.name, student?.learner()))).collect()
}

/// Follows one app through its recording.
struct Student {
    learner: Learner,
    /// Requests that one runner takes at once.
    places: usize,
    /// When the requests that came so far will have ended.
    ends: BinaryHeap<Reverse<Timestamp>>,
}

impl Student {
    fn new(app: &RecordedApp, settings: &Settings) -> Self {
        let places = app.scaling.unwrap_or_default().max_multiplexing.max(1) as usize;
        Self { learner: Learner::new(settings), places, ends: BinaryHeap::new() }
    }

    /// In order of arrival. One that never got a runner asked for none that stayed.
    fn request(&mut self, request: &Request) {
        let (Some(waited), Some(service)) = (request.waited, request.service) else { return };
        self.pass(request.at);
        self.ends.push(Reverse(request.at + waited + service));
        self.demand(request.at, u32::from(waited.is_zero()));
        self.learner.waited(waited);
        self.learner.served(service);
    }

    fn pass(&mut self, now: Timestamp) {
        while let Some(Reverse(end)) = self.ends.peek().copied().filter(|Reverse(end)| *end <= now)
        {
            self.ends.pop();
            self.demand(end, 1);
        }
    }

    fn demand(&mut self, at: Timestamp, ready: u32) {
        let demand = u32::try_from(self.ends.len().div_ceil(self.places)).unwrap_or(u32::MAX);
        self.learner.demand(at, demand, ready);
    }

    /// Nothing of what is recorded lasts on.
    fn learner(mut self) -> Learner {
        self.pass(Timestamp::MAX);
        self.learner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(at_secs: u64, waited_secs: u64, service_secs: u64) -> Request {
        let service = Some(Duration::from_secs(service_secs));
        let waited = Some(Duration::from_secs(waited_secs));
        Request { waited, ..Request::new(Timestamp::from_secs(at_secs), 0, service) }
    }

    #[test]
    fn a_recording_teaches_what_its_traffic_taught() {
        let settings = Settings::default();
        let mut student = Student::new(&RecordedApp::named("a"), &settings);
        let mut live = Learner::new(&settings);
        // Two at a time every hundred seconds: the second comes while the first is served.
        for nth in 0..30 {
            let at = nth * 100;
            student.request(&request(at, 0, 10));
            student.request(&request(at + 4, 2, 10));
            for (after, demand) in [(0, 1), (4, 2), (10, 1), (16, 0)] {
                live.demand(Timestamp::from_secs(at + after), demand, 1);
            }
            for wait in [0, 2] {
                live.waited(Duration::from_secs(wait));
                live.served(Duration::from_secs(10));
            }
        }
        let now = Timestamp::from_secs(3_000);
        assert_eq!(student.learner().learned(now, 0), live.learned(now, 0));
    }

    #[test]
    fn who_got_no_runner_teaches_nothing() {
        let settings = Settings::default();
        let mut student = Student::new(&RecordedApp::named("a"), &settings);
        student.request(&Request { waited: None, ..request(5, 0, 1) });
        student.request(&Request { service: None, ..request(6, 0, 1) });
        let now = Timestamp::from_secs(10);
        assert_eq!(student.learner().learned(now, 0), Learner::new(&settings).learned(now, 0));
    }
}
