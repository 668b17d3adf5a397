//! A recorded trace as a stream among others.

use std::path::PathBuf;
use std::time::Duration;

use glowplug_core::Timestamp;

use super::source::TrafficError;
use crate::trace::{self, Record};
use crate::traffic::Arrival;

/// Which part of which trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    pub file: PathBuf,
    /// The app's name in the trace. `None`: the requests of all apps.
    pub app: Option<String>,
}

/// The requests of a trace, read as they are needed.
#[derive(Debug)]
pub(super) struct Replaying {
    records: trace::Trace,
    replay: Replay,
    /// Apps seen so far, and which of them is meant.
    apps_seen: u32,
    wanted: Option<u32>,
    /// To whom the requests go here.
    app: u32,
    from: Duration,
    until: Timestamp,
}

impl Replaying {
    pub(super) fn open(
        replay: &Replay,
        app: u32,
        from: Duration,
        until: Duration,
    ) -> Result<Self, TrafficError> {
        let records = trace::open(&replay.file, &trace::Options::default())
            .map_err(|source| TrafficError::Trace { file: replay.file.clone(), source })?;
        Ok(Self {
            records,
            replay: replay.clone(),
            apps_seen: 0,
            wanted: None,
            app,
            from,
            until: Timestamp::ZERO + until,
        })
    }

    fn arrival(&self, request: &trace::Request) -> Arrival {
        Arrival {
            at: request.at + self.from,
            app: self.app,
            service: request.service,
            mode: request.mode,
            priority: request.priority,
            start_within: request.start_within,
        }
    }
}

impl Iterator for Replaying {
    type Item = Result<Arrival, TrafficError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let record = match self.records.next() {
                None => break,
                Some(Ok(record)) => record,
                Some(Err(source)) => {
                    return Some(Err(TrafficError::Trace {
                        file: self.replay.file.clone(),
                        source,
                    }));
                }
            };
            match record {
                Record::App(app) => {
                    if self.replay.app.as_ref() == Some(&app.name) {
                        self.wanted = Some(self.apps_seen);
                    }
                    self.apps_seen += 1;
                }
                Record::Request(request)
                    if self.replay.app.is_none() || self.wanted == Some(request.app) =>
                {
                    let arrival = self.arrival(&request);
                    return (arrival.at < self.until).then_some(Ok(arrival));
                }
                Record::Request(_) | Record::Start(_) | Record::Stop(_) => {}
            }
        }
        match (&self.replay.app, self.wanted) {
            (Some(app), None) => {
                let (file, app) = (self.replay.file.clone(), app.clone());
                self.replay.app = None;
                Some(Err(TrafficError::NoSuchApp { file, app }))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use super::super::source::{Origin, Stream, Traffic};
    use super::*;
    use crate::trace::{App, Header, LEVEL_DEFAULT, Request, Writer};

    const HOUR: Duration = Duration::from_hours(1);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// App `a` each 10 s from 0 on, app `b` 1 s after it.
    fn write_trace(file: &Path) {
        let mut writer =
            Writer::new(File::create(file).unwrap(), &Header::default(), LEVEL_DEFAULT).unwrap();
        for name in ["a", "b"] {
            writer.write(&Record::App(App::named(name))).unwrap();
        }
        for at in (0..60).step_by(10) {
            for app in 0..2 {
                let at = Timestamp::from_secs(at + u64::from(app));
                let request = Request::new(at, app, Some(secs(u64::from(app) + 3)));
                writer.write(&Record::Request(request)).unwrap();
            }
        }
        writer.finish().unwrap();
    }

    fn replayed(file: &Path, app: Option<&str>, until: u64) -> Result<Vec<Arrival>, TrafficError> {
        let replay = Replay { file: file.to_owned(), app: app.map(str::to_owned) };
        let shape = super::super::Shape::Even { every: HOUR };
        let stream = Stream {
            origin: Origin::Replay(replay),
            from: secs(100),
            until: secs(until),
            ..Stream::new(7, shape, HOUR)
        };
        Traffic::new([stream], 0).collect()
    }

    #[test]
    fn one_app_or_all_of_a_trace_are_replayed_from_a_moment_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.gptrace");
        write_trace(&file);
        let all = replayed(&file, None, 3_600).unwrap();
        assert_eq!(all.len(), 12);
        let one = replayed(&file, Some("b"), 135).unwrap();
        let at: Vec<Timestamp> = one.iter().map(|arrival| arrival.at).collect();
        assert_eq!(at, [101, 111, 121, 131].map(Timestamp::from_secs));
        assert!(one.iter().all(|one| one.app == 7 && one.service == Some(secs(4))));
    }

    #[test]
    fn other_formats_are_told_by_their_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.csv");
        std::fs::write(&file, "timestamp,app,duration\n10,a,2\n25,a,3\n").unwrap();
        let all = replayed(&file, Some("a"), 3_600).unwrap();
        let found: Vec<_> = all.iter().map(|one| (one.at, one.service)).collect();
        let at = Timestamp::from_secs;
        assert_eq!(found, [(at(110), Some(secs(2))), (at(125), Some(secs(3)))]);
    }

    #[test]
    fn what_cannot_be_replayed_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.gptrace");
        write_trace(&file);
        let error = replayed(&file, Some("c"), 3_600).unwrap_err().to_string();
        assert!(error.ends_with("knows no app `c`"), "{error}");
        for file in [dir.path().join("none"), dir.path().to_owned()] {
            let error = replayed(&file, None, 3_600).unwrap_err().to_string();
            assert!(error.starts_with("cannot replay the trace"), "{error}");
        }
    }
}
