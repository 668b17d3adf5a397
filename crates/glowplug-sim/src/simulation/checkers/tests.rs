//! Every rule is broken once, by actions that no engine gave.

use super::*;
use crate::simulation::requests::NOWHERE;

use glowplug_core::AppId;
use glowplug_core::decision::{StopReason, What};
use glowplug_core::lifecycle::State;
use glowplug_core::resources::MachineType;
use glowplug_core::retry::Rules;
use glowplug_core::spec::Scaling;

const NOW: Timestamp = Timestamp::from_secs(100);

fn runner(sequence: u32) -> RunnerId {
    RunnerId { boot: 1, sequence }
}

fn spec(scaling: Scaling) -> AppSpec {
    let machine_types =
        vec![MachineType { name: "m".into(), cpu_millis: 10, ..MachineType::default() }];
    AppSpec {
        name: "local/app".into(),
        revision: 1,
        scaling,
        machine_types,
        retry: Rules::default(),
    }
}

fn allocation() -> Allocation {
    Allocation { machine_type: "m".into(), cpu_millis: 10, ..Allocation::default() }
}

/// Two apps that may have two runners of two places each; room for three.
fn facts() -> Facts {
    let capacity = Capacity { cpu_millis: 30, ..Capacity::default() };
    let mut facts = Facts::new(1, capacity);
    let scaling = Scaling { max_concurrency: Some(2), max_multiplexing: 2, ..Scaling::default() };
    facts.app_changed(0, spec(scaling));
    facts.app_changed(1, spec(scaling));
    facts
}

impl Facts {
    fn arrive(&mut self, app: u32) -> RequestId {
        let handle = self.requests.enter(app, Mode::Queued, NOW);
        assert_eq!(self.requests.get(handle).on, NOWHERE);
        self.requests.get(handle).id()
    }

    fn starts(&mut self, sequence: u32, app: u32) -> Verdict<u32> {
        self.start(NOW, runner(sequence), app, &allocation())
    }

    /// A runner of app 0 that is ready.
    fn ready(&mut self, sequence: u32) -> u32 {
        let place = self.starts(sequence, 0).unwrap();
        self.setup_started(place);
        assert!(self.becomes_ready(place));
        place
    }

    fn assigns(&mut self, request: RequestId, attempt: u32, sequence: u32) -> Verdict<()> {
        let lease = Lease { request, attempt, runner: runner(sequence) };
        self.assign(NOW, lease, Mode::Queued).map(drop)
    }

    fn delivers(&mut self, request: RequestId, attempt: u32, sequence: u32) -> Verdict<()> {
        let lease = Lease { request, attempt, runner: runner(sequence) };
        let (handle, _) = self.deliver(lease)?;
        self.requests.leave(handle);
        Ok(())
    }

    fn note_stopping(&mut self, sequence: u32) {
        self.noted(&Decision {
            at: NOW,
            app: AppId(0),
            name: String::new(),
            runner: Some(runner(sequence)),
            request: None,
            what: What::Stopping { reason: StopReason::Requested, state: State::Running },
        });
    }
}

#[test]
fn a_usual_course_breaks_nothing() {
    let mut facts = facts();
    let request = facts.arrive(0);
    let place = facts.ready(1);
    facts.assigns(request, 1, 1).unwrap();
    facts.delivers(request, 1, 1).unwrap();
    assert!(!facts.only_floors_live());
    facts.stop(runner(1), Some(Duration::ZERO)).unwrap();
    assert!(facts.exited(place));
    assert!(!facts.exited(place), "that is no news");
    facts.forget(runner(1)).unwrap();
    assert!(facts.only_floors_live());
    assert_eq!(facts.check_rest(0), Ok(()));
}

#[test]
fn assignments_that_must_not_be_are_found() {
    let check = |expected: Rule, act: fn(&mut Facts, RequestId) -> Verdict<()>| {
        let mut facts = facts();
        facts.ready(1);
        let request = facts.arrive(0);
        assert_eq!(act(&mut facts, request), Err(expected));
    };
    check("assigned to a runner that is not ready", |facts, request| {
        let place = facts.starts(2, 0)?;
        facts.setup_started(place);
        facts.assigns(request, 1, 2)
    });
    check("assigned to a runner that is not ready", |facts, request| {
        let place = facts.starts(2, 0)?;
        assert!(!facts.becomes_ready(place), "its program was never spawned");
        facts.assigns(request, 1, 2)
    });
    check("assigned above max_multiplexing", |facts, request| {
        let (second, third) = (facts.arrive(0), facts.arrive(0));
        facts.assigns(request, 1, 1)?;
        facts.assigns(second, 1, 1)?;
        facts.assigns(third, 1, 1)
    });
    check("assigned to a runner that is to end", |facts, request| {
        facts.stop(runner(1), Some(Duration::ZERO))?;
        facts.assigns(request, 1, 1)
    });
    check("assigned to a runner that is to end", |facts, request| {
        facts.note_stopping(1);
        facts.assigns(request, 1, 1)
    });
    check("assigned to a runner that is to end", |facts, request| {
        let place = facts.roster.find(runner(1)).unwrap();
        facts.exited(place);
        facts.assigns(request, 1, 1)
    });
    check("assigned to a runner of another app", |facts, _| {
        let request = facts.arrive(1);
        facts.assigns(request, 1, 1)
    });
    check("assigned to an unknown runner", |facts, request| facts.assigns(request, 1, 9));
    check("an unknown request was assigned", |facts, _| facts.assigns(RequestId(77), 1, 1));
    check("a request was assigned twice", |facts, request| {
        facts.assigns(request, 1, 1)?;
        facts.assigns(request, 2, 1)
    });
    check("attempts are not counted one by one", |facts, request| facts.assigns(request, 2, 1));
    check("a request was started after its deadline", |facts, request| {
        let handle = facts.requests.find(request).unwrap();
        facts.requests.get_mut(handle).start_deadline = NOW;
        facts.assigns(request, 1, 1)
    });
    check("a request changed its mode", |facts, request| {
        let lease = Lease { request, attempt: 1, runner: runner(1) };
        facts.assign(NOW, lease, Mode::Direct).map(drop)
    });
    check("tried again before its delay was over", |facts, request| {
        facts.assigns(request, 1, 1)?;
        let lease = Lease { request, attempt: 1, runner: runner(1) };
        facts.retry(NOW, lease, Duration::from_secs(1))?;
        facts.assigns(request, 2, 1)
    });
    check("a request got too many attempts", |facts, request| {
        for attempt in 1..=ATTEMPTS_MAX {
            facts.assigns(request, attempt, 1)?;
            let lease = Lease { request, attempt, runner: runner(1) };
            facts.retry(NOW, lease, Duration::ZERO)?;
        }
        Ok(())
    });
}

#[test]
fn ends_of_requests_that_must_not_be_are_found() {
    let check = |expected: Rule, act: fn(&mut Facts, RequestId) -> Verdict<()>| {
        let mut facts = facts();
        facts.ready(1);
        let request = facts.arrive(0);
        facts.assigns(request, 1, 1).unwrap();
        assert_eq!(act(&mut facts, request), Err(expected));
    };
    let stale = "a stale attempt was taken for an answer";
    check(stale, |facts, request| {
        facts.delivers(request, 1, 1)?;
        facts.delivers(request, 1, 1)
    });
    check(stale, |facts, request| facts.delivers(request, 2, 1));
    check(stale, |facts, request| {
        facts.ready(2);
        facts.delivers(request, 1, 2)
    });
    check(stale, |facts, request| {
        let lease = Lease { request, attempt: 1, runner: runner(1) };
        facts.retry(NOW, lease, Duration::ZERO)?;
        facts.delivers(request, 1, 1)
    });
    check("an answer from an unknown runner", |facts, request| facts.delivers(request, 1, 3));
    check("a request in flight was refused", |facts, request| {
        facts.refuse(request, Mode::Queued).map(drop)
    });
    check("an unknown request was refused", |facts, request| {
        facts.delivers(request, 1, 1)?;
        facts.refuse(request, Mode::Queued).map(drop)
    });
    check("an attempt was revoked that is over", |facts, request| {
        facts.delivers(request, 1, 1)?;
        let lease = Lease { request, attempt: 1, runner: runner(1) };
        facts.revoke(lease).map(drop)
    });
    check("a direct request was tried again", |facts, request| {
        let handle = facts.requests.find(request).unwrap();
        facts.requests.get_mut(handle).mode = Mode::Direct;
        let lease = Lease { request, attempt: 1, runner: runner(1) };
        facts.retry(NOW, lease, Duration::ZERO).map(drop)
    });
}

#[test]
fn starts_and_ends_of_runners_that_must_not_be_are_found() {
    let check = |expected: Rule, act: fn(&mut Facts) -> Verdict<()>| {
        let mut facts = facts();
        facts.ready(1);
        assert_eq!(act(&mut facts), Err(expected));
    };
    check("a runner was started twice", |facts| facts.starts(1, 1).map(drop));
    check("more runners were started than max_concurrency", |facts| {
        facts.starts(2, 0)?;
        facts.starts(3, 0).map(drop)
    });
    check("more CPU was given out than there is", |facts| {
        facts.starts(2, 0)?;
        facts.starts(3, 1)?;
        facts.starts(4, 1).map(drop)
    });
    check("a runner was started for a removed app", |facts| {
        facts.app_removed(1);
        facts.starts(2, 1).map(drop)
    });
    check("a runner was started for no app", |facts| facts.starts(2, 2).map(drop));
    check("a runner was started after shut-down", |facts| {
        facts.shut_down();
        facts.starts(2, 0).map(drop)
    });
    check("a runner was stopped that was never started", |facts| {
        facts.stop(runner(2), None).map(drop)
    });
    check("a runner was told twice to end gracefully", |facts| {
        facts.stop(runner(1), Some(Duration::ZERO))?;
        facts.stop(runner(1), Some(Duration::ZERO)).map(drop)
    });
    check("a runner was dropped that still lives", |facts| facts.forget(runner(1)));
    check("a runner was dropped with requests", |facts| {
        let request = facts.arrive(0);
        facts.assigns(request, 1, 1)?;
        let place = facts.roster.find(runner(1)).unwrap();
        facts.exited(place);
        facts.forget(runner(1))
    });
}

/// One whose end is decided is no longer counted, and one that has ended holds nothing.
#[test]
fn room_and_cap_come_back() {
    let mut facts = facts();
    let first = facts.ready(1);
    facts.ready(2);
    facts.note_stopping(1);
    facts.stop(runner(1), Some(Duration::ZERO)).unwrap();
    facts.stop(runner(1), None).unwrap();
    facts.starts(3, 0).unwrap();
    facts.exited(first);
    facts.starts(4, 1).unwrap();
}

#[test]
fn what_is_left_in_the_end_is_found() {
    let check = |expected: Verdict<()>, records: u32, act: fn(&mut Facts)| {
        let mut facts = facts();
        act(&mut facts);
        assert_eq!(facts.check_rest(records), expected);
    };
    check(Ok(()), 0, |_| {});
    check(Err("the engine remembers runners that are gone"), 1, |_| {});
    check(Err("runners are left that nothing will end"), 1, |facts| {
        facts.ready(1);
    });
    check(Ok(()), 1, |facts| {
        facts.app_changed(0, spec(Scaling { min_concurrency: 1, ..Scaling::default() }));
        facts.ready(1);
    });
    check(Err("a request is left waiting"), 0, |facts| {
        facts.arrive(0);
    });
    check(Ok(()), 1, |facts| {
        // Others hold all there is for good.
        facts.app_changed(1, spec(Scaling { min_concurrency: 3, ..Scaling::default() }));
        for sequence in 1..=3 {
            facts.starts(sequence, 1).unwrap();
        }
        facts.arrive(0);
    });
    check(Ok(()), 0, |facts| {
        facts.arrive(0);
        facts.shut_down();
    });
    check(Err("a request is left in flight"), 1, |facts| {
        let request = facts.arrive(0);
        facts.app_changed(0, spec(Scaling { min_concurrency: 1, ..Scaling::default() }));
        facts.ready(1);
        facts.assigns(request, 1, 1).unwrap();
    });
}

#[test]
fn an_engine_that_does_not_come_to_rest_is_found() {
    let mut facts = facts();
    for _ in 0..WAKE_UPS_AT_ONCE_MAX {
        assert_eq!(facts.woken(), Ok(()));
    }
    facts.goes_on();
    for _ in 0..WAKE_UPS_AT_ONCE_MAX {
        assert_eq!(facts.woken(), Ok(()));
    }
    let again = "the engine wants to be woken again and again at the same moment";
    assert_eq!(facts.woken(), Err(again));
    // Two apps are known.
    let limit = ACTIONS_AT_ONCE_MAX + 2 * ACTIONS_AT_ONCE_EACH_MAX;
    assert_eq!(facts.acted(limit), Ok(()));
    assert_eq!(facts.acted(limit + 1), Err("one event caused too many actions"));
}
