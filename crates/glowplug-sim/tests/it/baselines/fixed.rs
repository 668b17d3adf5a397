//! `keep_alive` for one app, as its documentation says it, in the plainest way: every runner is looked
//! at after every event. Runners serve one request at a time; nothing is limited; nothing fails.

use std::collections::VecDeque;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_sim::traffic::Arrival;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) starts: u32,
    /// All requests together.
    pub(super) waited: Duration,
    /// Requests that waited.
    pub(super) cold: u32,
    /// All runners together, once ready.
    pub(super) idle: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runner {
    Starting { until: Timestamp },
    Busy { until: Timestamp },
    Idle { since: Timestamp },
}

#[derive(Debug)]
struct Fixed {
    keep_alive: Duration,
    setup: Duration,
    /// In order of their starts.
    runners: Vec<Runner>,
    waiting: VecDeque<Arrival>,
    /// Since when there are more runners than requests.
    surplus_since: Option<Timestamp>,
    course: Course,
}

/// What becomes of requests that all bring their service time.
pub(super) fn run(traffic: &[Arrival], keep_alive: Duration, setup: Duration) -> Course {
    let mut fixed = Fixed {
        keep_alive,
        setup,
        runners: Vec::new(),
        waiting: VecDeque::new(),
        surplus_since: None,
        course: Course::default(),
    };
    for arrival in traffic {
        fixed.advance(arrival.at);
        fixed.waiting.push_back(*arrival);
        fixed.settle(arrival.at);
    }
    fixed.advance(Timestamp::MAX);
    fixed.course
}

impl Fixed {
    fn advance(&mut self, until: Timestamp) {
        while let Some(at) = self.next_change()
            && at <= until
        {
            for runner in &mut self.runners {
                match *runner {
                    Runner::Starting { until } | Runner::Busy { until } if until == at => {
                        *runner = Runner::Idle { since: at };
                    }
                    _ => {}
                }
            }
            self.settle(at);
        }
    }

    fn next_change(&self) -> Option<Timestamp> {
        let of_runner = |runner: &Runner| match *runner {
            Runner::Starting { until } | Runner::Busy { until } => until,
            Runner::Idle { since } => since + self.keep_alive,
        };
        let starting = self.runners.iter().any(|runner| matches!(runner, Runner::Starting { .. }));
        let cancel = self.surplus_since.filter(|_| starting).map(|since| since + self.keep_alive);
        self.runners.iter().map(of_runner).chain(cancel).min()
    }

    fn settle(&mut self, now: Timestamp) {
        self.assign(now);
        let requests = self.busy() + self.waiting.len();
        while self.runners.len() < requests {
            self.course.starts += 1;
            self.runners.push(Runner::Starting { until: now + self.setup });
        }
        if self.runners.len() > requests {
            let since = *self.surplus_since.get_or_insert(now);
            for _ in requests..self.runners.len() {
                self.end_one(now, since);
            }
        }
        if self.runners.len() == requests {
            self.surplus_since = None;
        }
    }

    fn busy(&self) -> usize {
        self.runners.iter().filter(|runner| matches!(runner, Runner::Busy { .. })).count()
    }

    /// The longest waiting request goes to the runner that was used last.
    fn assign(&mut self, now: Timestamp) {
        while !self.waiting.is_empty() {
            let idle = |(nth, runner): (usize, &Runner)| match runner {
                Runner::Idle { since } => Some((*since, nth)),
                _ => None,
            };
            let Some((since, nth)) = self.runners.iter().enumerate().filter_map(idle).max() else {
                return;
            };
            let arrival = self.waiting.pop_front().expect("it is not empty");
            let service = arrival.service.expect("each request says how long it takes");
            self.course.idle += now - since;
            self.course.waited += now - arrival.at;
            self.course.cold += u32::from(now > arrival.at);
            self.runners[nth] = Runner::Busy { until: now + service };
        }
    }

    /// One runner too many: a start, the newest first, rather than one that is ready; but none before
    /// its time.
    fn end_one(&mut self, now: Timestamp, surplus_since: Timestamp) {
        let expired = |runner: &Runner| match runner {
            Runner::Idle { since } if now - *since >= self.keep_alive => Some(*since),
            _ => None,
        };
        let longest_idle = self.runners.iter().filter_map(expired).min();
        let newest_start =
            self.runners.iter().rposition(|runner| matches!(runner, Runner::Starting { .. }));
        let cancel = longest_idle.is_some() || now - surplus_since >= self.keep_alive;
        if let Some(nth) = newest_start.filter(|_| cancel) {
            self.runners.remove(nth);
        } else if let Some(since) = longest_idle {
            self.course.idle += now - since;
            let longest = |runner: &Runner| *runner == Runner::Idle { since };
            let nth = self.runners.iter().position(longest).expect("it was just found");
            self.runners.remove(nth);
        }
    }
}
