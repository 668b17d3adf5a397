//! The desk: the engine, everybody who waits for it, and the one lock around both.
//!
//! The engine is owned here and nowhere else. Whoever has an event takes the lock, hands it in and takes
//! the actions out, all within microseconds: a warm request finds its runner without waking another
//! thread. What concerns a waiting caller is answered on the spot; everything that takes time goes to the
//! outbox, in order, and is performed by the executor outside the lock. Nothing here waits for a disk, a
//! process or a socket.
//!
//! `perform.rs` does what the engine wants done, `work.rs` names what is left to others.

mod perform;
mod work;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use glowplug_core::auto::Learner;
use glowplug_core::decision::{Decision, StopReason, What};
use glowplug_core::event::Adopted;
use glowplug_core::lifecycle::State as RunnerState;
use glowplug_core::request::{Arrival, Mode, Outcome, Priority, Refusal};
use glowplug_core::retry::Wish;
use glowplug_core::{
    AppId, CallerId, Engine, Event, HintId, Lease, RequestId, RunnerAddress, RunnerId, Timestamp,
};
use glowplug_gateway::host::{Admission, DirectArrival, Slot};
use glowplug_image::pull::Progress as PullProgress;
use tokio::sync::{Notify, oneshot, watch};

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::recorder::tape::{Entry, Recording, Take, Tape};
use crate::records::Records;

pub(crate) use work::{Attempt, Work};

/// What the engine said of a queued attempt's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The attempt's answer is the request's.
    Deliver,
    /// The request is waiting for its next attempt.
    Retry,
    /// The attempt had been withdrawn before.
    Void,
}

pub(crate) struct Desk {
    clock: Clock,
    state: Mutex<State>,
    /// The engine's next wake-up moved forward.
    pub(crate) rearmed: Notify,
    /// The outbox is not empty.
    pub(crate) outbox_filled: Notify,
    /// The tape should be taken before it is full.
    pub(crate) tape_filled: Notify,
}

pub(crate) struct State {
    pub(crate) engine: Engine,
    pub(crate) records: Records,
    tape: Tape,
    pub(crate) metrics: Arc<Metrics>,
    /// Direct callers that wait for a runner. Bounded by the engine's `waiting_max` per app.
    callers: HashMap<RequestId, oneshot::Sender<Result<Slot, Refusal>>, RandomState>,
    /// Attempts under way. Bounded by runners × multiplexing.
    attempts: HashMap<RequestId, UnderWay, RandomState>,
    addresses: HashMap<RunnerId, Arc<RunnerAddress>, RandomState>,
    /// Websockets that must close before their runner is killed ask when that is.
    leaving: HashMap<RunnerId, watch::Sender<Option<Timestamp>>, RandomState>,
    /// What was told of runners of an earlier life of the node before they were adopted.
    strangers: BTreeMap<RunnerId, Stranger>,
    outbox: VecDeque<Work>,
    armed: Option<Timestamp>,
}

/// An attempt under way.
enum UnderWay {
    /// With the way to withdraw it.
    Holding(oneshot::Sender<Refusal>),
    Withdrawn(Refusal),
}

/// News of a runner that the engine does not know (yet).
enum Stranger {
    Ready(RunnerAddress),
    Ended,
}

/// Runners that the engine does not know of which news is kept.
const STRANGERS_MAX: usize = 10_000;

/// What an event meant for the one who brought it.
#[derive(Default)]
struct Own {
    request: Option<RequestId>,
    slot: Option<Result<Slot, Refusal>>,
    verdict: Option<Verdict>,
}

impl Desk {
    pub(crate) fn new(
        clock: Clock,
        engine: Engine,
        metrics: Arc<Metrics>,
        recording: Recording,
    ) -> Self {
        Self {
            clock,
            state: Mutex::new(State {
                engine,
                records: Records::default(),
                tape: Tape::new(recording),
                metrics,
                callers: HashMap::default(),
                attempts: HashMap::default(),
                addresses: HashMap::default(),
                leaving: HashMap::default(),
                strangers: BTreeMap::new(),
                outbox: VecDeque::new(),
                armed: None,
            }),
            rearmed: Notify::new(),
            outbox_filled: Notify::new(),
            tape_filled: Notify::new(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn is_frozen(&self, runner: RunnerId) -> bool {
        let state = self.lock();
        let view = state.engine.runner(runner);
        view.is_some_and(|view| matches!(view.state, RunnerState::Frozen | RunnerState::Thawing))
    }

    /// The engine's state, to read.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State, Timestamp) -> T) -> T {
        let state = self.lock();
        look(&state, self.clock.now())
    }

    /// Takes an event in that nobody waits for.
    pub(crate) fn report(&self, event: Event) {
        let mut state = self.lock();
        let now = self.clock.now();
        state.records.event(now, &event);
        match &event {
            Event::SetupStarted { runner, .. } => state.note_pull(now, *runner),
            Event::AppChanged { app, spec } => state.tape.app(*app, spec),
            _ => {}
        }
        self.handle(&mut state, now, event, &mut Own::default());
    }

    /// A runner of an earlier life of the node.
    pub(crate) fn adopt(&self, adopted: Adopted, app: &str, address: Option<RunnerAddress>) {
        let mut state = self.lock();
        let now = self.clock.now();
        let mut adopted = adopted;
        let address = match state.strangers.remove(&adopted.runner) {
            Some(Stranger::Ended) => return,
            Some(Stranger::Ready(since)) => Some(since),
            None => address,
        };
        adopted.ready = address.is_some();
        state.records.adopted(&adopted, app);
        if let Some(address) = address {
            state.addresses.insert(adopted.runner, Arc::new(address));
        }
        state.outbox.push_back(Work::Watch { runner: adopted.runner, app: adopted.app });
        self.handle(&mut state, now, Event::Adopted(adopted), &mut Own::default());
    }

    /// Nothing is left of a runner. `by_itself`: not by a signal that asked it to end. Returns whether
    /// the engine knew it.
    pub(crate) fn exited(&self, runner: RunnerId, detail: String, by_itself: bool) -> bool {
        let mut state = self.lock();
        let now = self.clock.now();
        let known = state.engine.runner(runner).is_some();
        if known {
            if by_itself {
                state.note_death(now, runner, &detail);
            }
            self.handle(&mut state, now, Event::Exited { runner, detail }, &mut Own::default());
        } else {
            state.stranger(runner, Stranger::Ended);
        }
        known
    }

    pub(crate) fn ready(&self, runner: RunnerId, address: RunnerAddress) {
        let mut state = self.lock();
        let now = self.clock.now();
        if state.engine.runner(runner).is_none() {
            state.stranger(runner, Stranger::Ready(address));
            return;
        }
        state.addresses.insert(runner, Arc::new(address));
        let event = Event::Ready { runner };
        state.records.event(now, &event);
        self.handle(&mut state, now, event, &mut Own::default());
    }

    /// What is known of an app from another life of the node, for when it is deployed.
    pub(crate) fn teach(&self, app: AppId, learner: Learner) {
        self.lock().engine.teach(app, learner);
    }

    /// Does what time alone makes due.
    pub(crate) fn advance(&self) {
        let mut state = self.lock();
        let now = self.clock.now();
        state.armed = None;
        state.engine.advance(now);
        self.settle(&mut state, now, &mut Own::default());
    }

    /// When [`Desk::advance`] is to be called next.
    pub(crate) fn next_wakeup(&self) -> Option<Duration> {
        let mut state = self.lock();
        state.armed = state.engine.next_wakeup();
        state.armed.map(|at| at - self.clock.now())
    }

    pub(crate) fn arrive_direct(&self, arrival: &DirectArrival) -> Admission {
        let mut state = self.lock();
        let now = self.clock.now();
        let mut own = Own { request: Some(arrival.request), ..Own::default() };
        let request = Arrival {
            request: arrival.request,
            app: arrival.app,
            mode: Mode::Direct,
            priority: Priority::Normal,
            start_deadline: arrival.start_deadline,
            caller: CallerId::of(&arrival.caller),
            hint: arrival.hint.as_deref().map(HintId::of),
            retries: Wish::Never,
            attempts: 0,
        };
        state.records.arrived(now, &request);
        self.handle(&mut state, now, Event::Arrived(request), &mut own);
        match own.slot {
            Some(Ok(slot)) => Admission::Now(slot),
            Some(Err(refusal)) => Admission::Refused(refusal),
            None => {
                let (caller, admission) = oneshot::channel();
                state.callers.insert(arrival.request, caller);
                Admission::Wait(admission)
            }
        }
    }

    /// A durable request enters the queue. Its attempts come as [`Work::Attempt`]. Returns how many are
    /// served before it.
    pub(crate) fn arrive_queued(&self, arrival: Arrival) -> usize {
        let mut state = self.lock();
        let now = self.clock.now();
        let request = arrival.request;
        state.records.arrived(now, &arrival);
        self.handle(&mut state, now, Event::Arrived(arrival), &mut Own::default());
        match state.engine.request(request) {
            Some(glowplug_core::engine::RequestView::Waiting { position }) => position,
            _ => 0,
        }
    }

    pub(crate) fn abandon(&self, request: RequestId) {
        let mut state = self.lock();
        let now = self.clock.now();
        state.callers.remove(&request);
        self.handle(&mut state, now, Event::Cancelled { request }, &mut Own::default());
    }

    /// An attempt of a direct request ended.
    pub(crate) fn finish_direct(&self, lease: Lease, outcome: Outcome) {
        let mut state = self.lock();
        let now = self.clock.now();
        state.finished(now, lease, Mode::Direct, &outcome);
        self.handle(&mut state, now, Event::Finished { lease, outcome }, &mut Own::default());
    }

    /// An attempt of a queued request ended.
    pub(crate) fn finish_queued(&self, lease: Lease, outcome: Outcome) -> Verdict {
        let mut state = self.lock();
        let now = self.clock.now();
        let mut own = Own { request: Some(lease.request), ..Own::default() };
        state.finished(now, lease, Mode::Queued, &outcome);
        self.handle(&mut state, now, Event::Finished { lease, outcome }, &mut own);
        own.verdict.unwrap_or(Verdict::Void)
    }

    /// The runner waits for a pull, which tells here how far it is.
    pub(crate) fn pulling(&self, runner: RunnerId, progress: watch::Receiver<PullProgress>) {
        self.lock().records.pulling(runner, progress);
    }

    pub(crate) fn mark(&self, runner: RunnerId, marks: Vec<(String, Timestamp)>) {
        self.lock().records.mark(runner, marks);
    }

    /// Everything to be performed outside the lock, oldest first.
    pub(crate) fn take_outbox(&self) -> VecDeque<Work> {
        std::mem::take(&mut self.lock().outbox)
    }

    /// What is to be recorded, in the order in which it was over. `emptied`: a list to be filled again.
    pub(crate) fn take_tape(&self, emptied: Vec<Entry>) -> Take {
        self.lock().tape.take(emptied)
    }

    /// When a runner is killed that is told to end, once it is. `None`: it is gone already.
    pub(crate) fn leaving(&self, runner: RunnerId) -> Option<watch::Receiver<Option<Timestamp>>> {
        let mut state = self.lock();
        state.engine.runner(runner)?;
        let leaving = state.leaving.entry(runner).or_insert_with(|| watch::channel(None).0);
        Some(leaving.subscribe())
    }

    pub(crate) fn address(&self, runner: RunnerId) -> Option<Arc<RunnerAddress>> {
        self.lock().addresses.get(&runner).cloned()
    }

    /// A panic while the lock was held would have been in pure code; its state is still consistent
    /// enough to end the node in order.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, state: &mut State, now: Timestamp, event: Event, own: &mut Own) {
        state.engine.handle(now, event);
        self.settle(state, now, own);
    }

    /// Takes the engine's actions out and arms its next wake-up.
    fn settle(&self, state: &mut State, now: Timestamp, own: &mut Own) {
        while let Some(action) = state.engine.next_action() {
            state.perform(now, action, own);
        }
        if !state.outbox.is_empty() {
            self.outbox_filled.notify_one();
        }
        if state.tape.is_half_full() {
            self.tape_filled.notify_one();
        }
        let next = state.engine.next_wakeup();
        if let Some(at) = next
            && state.armed.is_none_or(|armed| at < armed)
        {
            state.armed = next;
            self.rearmed.notify_one();
        }
    }
}

impl State {
    fn finished(&mut self, now: Timestamp, lease: Lease, mode: Mode, outcome: &Outcome) {
        if let Some(record) = self.records.finished(now, lease, outcome) {
            self.metrics.finished(record.app, mode, outcome);
        }
    }

    fn stranger(&mut self, runner: RunnerId, news: Stranger) {
        self.strangers.insert(runner, news);
        if self.strangers.len() > STRANGERS_MAX {
            self.strangers.pop_first();
        }
    }

    /// Writes down what a runner died of that was to be stopped for a broken connection: the connection
    /// is often known to be broken before its cause is.
    fn note_death(&mut self, at: Timestamp, id: RunnerId, detail: &str) {
        let Some(runner) = self.engine.runner(id) else { return };
        if !matches!(runner.stop, Some(StopReason::BadAnswer { .. } | StopReason::Unhealthy { .. }))
        {
            return;
        }
        let name = self.engine.app(runner.app, at).map(|app| app.spec.name.clone());
        let decision = Decision {
            at,
            app: runner.app,
            name: name.unwrap_or_default(),
            runner: Some(id),
            request: None,
            what: What::Died { detail: detail.to_owned(), state: runner.state },
        };
        self.records.note(&decision);
        self.outbox.push_back(Work::Journal(decision));
    }

    /// Counts a pull that ended with the beginning of the runner's setup.
    fn note_pull(&self, now: Timestamp, runner: RunnerId) {
        let began = self.records.runner(runner).and_then(|record| record.pull_started);
        if let (Some(began), Some(runner)) = (began, self.engine.runner(runner)) {
            self.metrics.pulled(runner.app, now - began);
        }
    }
}
