//! The life of a runner, as a table.
//!
//! ```text
//!            ┌───────────────┐ delay over, or another runner of the app became ready
//!            │ FAILURE_DELAY ├──────────┐
//!            └───────▲───────┘          ▼
//!   wanted ──────────┴────────────► PENDING ──► DOCKER_PULL ──► SETUP ──► IDLE ◄──► RUNNING
//!   (after a failed start: delayed)    │             │            │         │          │
//!                                      │ cancel      │ stop       │ stop    │ stop     │ drain
//!                                      ▼             ▼            ▼         ▼          ▼
//!                                 TERMINATED ◄─────────────── TERMINATING ◄──────── DRAINING
//! ```
//!
//! Beside it: IDLE ──freeze──► frozen ──thaw──► thawing ──► IDLE, and from either to TERMINATING. A frozen
//! runner is set up and gets no processor. On the wire both are IDLE, with a detail.
//!
//! States and wire names are fal's. A runner whose start failed ends; the *next* runner of the app is
//! created in FAILURE_DELAY. [`step`] is total: every input in every state is accepted, ignored or denied,
//! and the last two say why.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Wants hardware, or has it and was not begun yet.
    Pending,
    /// Its image or environment is being fetched or built.
    DockerPull,
    /// The program runs `setup()`; its port is not open yet.
    Setup,
    /// The app's last start failed; waits before it may be tried again.
    FailureDelay,
    /// Ready, nothing in flight.
    Idle,
    /// Set up, and without a processor: takes no requests, counts for nothing.
    Frozen,
    /// It gets its processor back.
    Thawing,
    /// At least one request in flight.
    Running,
    /// Gets no new work; what is in flight is finishing.
    Draining,
    /// Told to end; `teardown()` may be running.
    Terminating,
    Terminated,
}

impl State {
    pub const ALL: [Self; 11] = [
        Self::Pending,
        Self::DockerPull,
        Self::Setup,
        Self::FailureDelay,
        Self::Idle,
        Self::Frozen,
        Self::Thawing,
        Self::Running,
        Self::Draining,
        Self::Terminating,
        Self::Terminated,
    ];

    /// As fal writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::DockerPull => "DOCKER_PULL",
            Self::Setup => "SETUP",
            Self::FailureDelay => "FAILURE_DELAY",
            Self::Idle | Self::Frozen | Self::Thawing => "IDLE",
            Self::Running => "RUNNING",
            Self::Draining => "DRAINING",
            Self::Terminating => "TERMINATING",
            Self::Terminated => "TERMINATED",
        }
    }

    /// What fal's name does not say.
    pub fn detail(self) -> Option<&'static str> {
        match self {
            Self::Frozen => Some("frozen"),
            Self::Thawing => Some("thawing"),
            _ => None,
        }
    }

    /// On its way to IDLE: counts as alive for the scaler, takes no requests.
    pub fn is_starting(self) -> bool {
        matches!(
            self,
            Self::Pending | Self::DockerPull | Self::Setup | Self::FailureDelay | Self::Thawing
        )
    }

    /// May be given requests.
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Idle | Self::Running)
    }

    /// Counts against floor, cap and demand.
    pub fn is_alive(self) -> bool {
        self.is_starting() || self.is_ready()
    }

    /// Paid for by the second, as fal bills: SETUP, IDLE, RUNNING, DRAINING, TERMINATING. A frozen runner
    /// holds memory only, which is counted apart.
    pub fn is_billed(self) -> bool {
        matches!(
            self,
            Self::Setup
                | Self::Idle
                | Self::Thawing
                | Self::Running
                | Self::Draining
                | Self::Terminating
        )
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        self.detail().map_or(Ok(()), |detail| write!(f, " ({detail})"))
    }
}

/// What can happen to a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// The backend began to fetch what the start needs.
    PullStarted,
    /// The program was spawned.
    SetupStarted,
    /// The program answers.
    Ready,
    /// A request was given to it.
    Assigned,
    /// Its last request in flight ended.
    LastFinished,
    /// Keep it without a processor.
    Freeze,
    /// Give it its processor back.
    Thaw,
    /// It has its processor back.
    Thawed,
    /// The wait after a failed start is over, or another runner's success ended it.
    DelayOver,
    /// The backend found no room after all: wait, then try again.
    NoRoom,
    /// Another start of the app failed before this one was begun: wait as that one's successor does.
    StartsDelayed,
    /// End it; what is in flight may finish.
    Drain,
    /// End it now.
    Kill,
    /// Nothing is left of it.
    Exited,
}

impl Input {
    pub const ALL: [Self; 14] = [
        Self::PullStarted,
        Self::SetupStarted,
        Self::Ready,
        Self::Assigned,
        Self::LastFinished,
        Self::Freeze,
        Self::Thaw,
        Self::Thawed,
        Self::DelayOver,
        Self::NoRoom,
        Self::StartsDelayed,
        Self::Drain,
        Self::Kill,
        Self::Exited,
    ];
}

/// What an input does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Move(State),
    /// Changes nothing, and that is right: a repeated or overtaken report.
    Ignore(&'static str),
    /// Must not happen: the sender is wrong about this runner.
    Deny(&'static str),
}

/// The transition table.
#[expect(clippy::match_same_arms, reason = "grouped by phase of life, as people read it")]
pub fn step(state: State, input: Input) -> Step {
    use Input as I;
    use State as S;
    use Step::{Deny, Ignore, Move};
    match (state, input) {
        // What is over stays over; late reports are normal.
        (S::Terminated, I::Assigned) => Deny("the runner has ended"),
        (S::Terminated, _) => Ignore("the runner has ended"),
        (_, I::Exited) => Move(S::Terminated),

        // Starting.
        (S::Pending, I::PullStarted) => Move(S::DockerPull),
        (S::Pending | S::DockerPull, I::SetupStarted) => Move(S::Setup),
        (S::Setup, I::Ready) => Move(S::Idle),
        (S::FailureDelay, I::DelayOver) => Move(S::Pending),
        (S::Pending | S::DockerPull, I::NoRoom) | (S::Pending, I::StartsDelayed) => {
            Move(S::FailureDelay)
        }

        // Serving.
        (S::Idle | S::Running, I::Assigned) => Move(S::Running),
        (S::Running, I::LastFinished) => Move(S::Idle),
        (S::Draining, I::LastFinished) => Move(S::Terminating),

        // Without a processor, and back.
        (S::Idle, I::Freeze) => Move(S::Frozen),
        (S::Frozen, I::Thaw) => Move(S::Thawing),
        (S::Thawing, I::Thawed) => Move(S::Idle),
        (_, I::Thaw | I::Thawed) => Ignore("it is not frozen"),
        (S::Frozen | S::Thawing | S::Running, I::Freeze) => Ignore("it does not rest"),
        (_, I::Freeze) => Deny("it is not ready"),

        // Ending. What was never placed has nothing to terminate, but its driver may have begun: the
        // end is confirmed by `Exited` in every case but these two.
        (S::FailureDelay, I::Drain | I::Kill) => Move(S::Terminated),
        (
            S::Pending | S::DockerPull | S::Setup | S::Idle | S::Frozen | S::Thawing,
            I::Drain | I::Kill,
        ) => Move(S::Terminating),
        (S::Running, I::Drain) => Move(S::Draining),
        (S::Running | S::Draining, I::Kill) => Move(S::Terminating),
        (S::Draining | S::Terminating, I::Drain) | (S::Terminating, I::Kill) => {
            Ignore("it is ending already")
        }

        // Reports that a stop overtook. A start that found no room left nothing that could report an end.
        (S::Terminating, I::NoRoom) => Move(S::Terminated),
        (S::Draining | S::Terminating, I::PullStarted | I::SetupStarted | I::Ready) => {
            Ignore("it was told to end while starting")
        }
        (S::Terminating, I::LastFinished) => Ignore("it was told to end"),

        // Reports that came twice.
        (S::DockerPull, I::PullStarted)
        | (S::Setup, I::PullStarted | I::SetupStarted)
        | (
            S::Idle | S::Frozen | S::Thawing | S::Running,
            I::PullStarted | I::SetupStarted | I::Ready,
        ) => Ignore("it is past that already"),
        (_, I::DelayOver) => Ignore("it does not wait after a failed start"),
        (_, I::StartsDelayed) => Ignore("it was begun before the failure, or waits already"),
        (S::Idle | S::Frozen | S::Thawing, I::LastFinished) => Ignore("nothing was in flight"),

        // Wrong.
        (S::Draining | S::Terminating, I::Assigned) => Deny("it takes no new requests"),
        (_, I::Assigned) => Deny("it is not ready"),
        (S::FailureDelay, I::PullStarted | I::SetupStarted | I::Ready) => {
            Deny("it was not started: its delay is not over")
        }
        (S::Pending | S::DockerPull, I::Ready) => Deny("its setup has not begun"),
        (_, I::LastFinished) => Deny("it cannot have had a request"),
        (_, I::NoRoom) => Deny("it has its place already"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of the transition table that fal documents (states and triggers of its runner page), and what
    /// is ours.
    #[test]
    fn documented_transitions() {
        use Input as I;
        use State as S;
        for (from, input, to) in [
            (S::Pending, I::PullStarted, S::DockerPull),
            (S::Pending, I::SetupStarted, S::Setup),
            (S::DockerPull, I::SetupStarted, S::Setup),
            (S::Setup, I::Ready, S::Idle),
            (S::Setup, I::Exited, S::Terminated),
            (S::FailureDelay, I::DelayOver, S::Pending),
            (S::Pending, I::StartsDelayed, S::FailureDelay),
            (S::Idle, I::Assigned, S::Running),
            (S::Running, I::LastFinished, S::Idle),
            (S::Running, I::Drain, S::Draining),
            (S::Idle, I::Drain, S::Terminating),
            (S::Idle, I::Freeze, S::Frozen),
            (S::Frozen, I::Thaw, S::Thawing),
            (S::Thawing, I::Thawed, S::Idle),
            (S::Draining, I::LastFinished, S::Terminating),
            (S::Draining, I::Exited, S::Terminated),
            (S::Terminating, I::Exited, S::Terminated),
        ] {
            assert_eq!(step(from, input), Step::Move(to), "{from} {input:?}");
        }
    }

    #[test]
    fn only_ready_runners_take_requests() {
        for state in State::ALL {
            let accepted = step(state, Input::Assigned) == Step::Move(State::Running);
            assert_eq!(accepted, state.is_ready(), "{state}");
        }
    }

    #[test]
    fn nothing_leaves_terminated_and_everything_reaches_it() {
        for state in State::ALL {
            for input in Input::ALL {
                if state == State::Terminated {
                    assert!(!matches!(step(state, input), Step::Move(_)), "{input:?}");
                }
            }
            if state != State::Terminated {
                assert_eq!(step(state, Input::Exited), Step::Move(State::Terminated), "{state}");
            }
        }
    }

    #[test]
    fn nothing_returns_from_an_ending() {
        for state in [State::Draining, State::Terminating] {
            for input in Input::ALL {
                if let Step::Move(next) = step(state, input) {
                    assert!(!next.is_alive(), "{state} {input:?} → {next}");
                }
            }
        }
    }

    /// The whole table in one picture: a change of any cell shows up here.
    #[test]
    fn whole_table() {
        let mut table = String::new();
        for state in State::ALL {
            for input in Input::ALL {
                let cell = match step(state, input) {
                    Step::Move(next) => next.detail().unwrap_or(next.as_str()).to_owned(),
                    Step::Ignore(_) => "-".to_owned(),
                    Step::Deny(_) => "!".to_owned(),
                };
                table.push_str(&cell);
                table.push(' ');
            }
            table.push('\n');
        }
        // Columns: PullStarted SetupStarted Ready Assigned LastFinished Freeze Thaw Thawed DelayOver NoRoom
        // StartsDelayed Drain Kill Exited
        let expected = "\
DOCKER_PULL SETUP ! ! ! ! - - - FAILURE_DELAY FAILURE_DELAY TERMINATING TERMINATING TERMINATED 
- SETUP ! ! ! ! - - - FAILURE_DELAY - TERMINATING TERMINATING TERMINATED 
- - IDLE ! ! ! - - - ! - TERMINATING TERMINATING TERMINATED 
! ! ! ! ! ! - - PENDING ! - TERMINATED TERMINATED TERMINATED 
- - - RUNNING - frozen - - - ! - TERMINATING TERMINATING TERMINATED 
- - - ! - - thawing - - ! - TERMINATING TERMINATING TERMINATED 
- - - ! - - - IDLE - ! - TERMINATING TERMINATING TERMINATED 
- - - RUNNING IDLE - - - - ! - DRAINING TERMINATING TERMINATED 
- - - ! TERMINATING ! - - - ! - - TERMINATING TERMINATED 
- - - ! - ! - - - TERMINATED - - - TERMINATED 
- - - ! - - - - - - - - - - 
";
        assert_eq!(table, expected);
    }
}
