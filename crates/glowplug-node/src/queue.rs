//! The durable queue: what was accepted is on disk before the caller hears of it, and is completed once.
//!
//! ```text
//! submit ─► store (fsync) ─► engine ─► attempt ─┬─► deliver ─► store ─► COMPLETED
//!              ▲                ▲               └─► retry ──┐
//!              │ adopt          └───────────────────────────┘
//!   earlier life, or a node that is gone
//! ```
//!
//! The engine decides who runs when and whether an attempt counts; the store remembers; this module runs
//! the attempts between them. A request belongs to the node that accepted it. When that node is gone, the
//! next one takes it over (`takeover.rs`) and queues it again; a request whose app is not ready is held
//! back until it is. Bodies are read from the store for each attempt: waiting costs no memory beyond a
//! request's head, and no more than `waiting_max` are accepted for each app.
//!
//! What it does not do: it never decides that a request is tried again, and never changes an answer that
//! the store has.

mod accept;
mod afar;
mod answer;
mod attempts;
mod cancel;
mod health;
mod retention;
mod status;
mod takeover;
mod wish;
mod words;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use glowplug_core::request::Priority;
use glowplug_core::{AppId, RequestId, RunnerId};
use glowplug_gateway::host::QueueLog;
use glowplug_store::QueuedHead;
use tokio::sync::watch;

use self::afar::Watched;
pub(crate) use self::health::Health;
pub(crate) use self::retention::purge;
pub(crate) use self::takeover::{follow_changes, look_after, take_over};
use self::words::LogEnds;

/// Requests that this node has accepted or taken over, and that are not complete.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    live: Mutex<Requests>,
    /// Of apps that are not ready, by app, in order of acceptance. All of them are among the live ones.
    held_back: Mutex<BTreeMap<String, VecDeque<QueuedHead>>>,
    log_ends: LogEnds,
    /// Requests of other nodes that somebody here follows.
    watched: Watched,
    pub(crate) health: Health,
}

#[derive(Debug, Default)]
struct Requests {
    by_id: HashMap<RequestId, Live>,
    /// On their way to the disk, by app.
    accepting: HashMap<AppId, usize>,
}

#[derive(Debug)]
struct Live {
    app: Arc<str>,
    path: Box<str>,
    place: Place,
    logs: Vec<QueueLog>,
    /// Counts changes, for whoever follows the status. Made when somebody does.
    changed: Option<watch::Sender<u64>>,
    /// The lowest position that was reported: none is reported above it later.
    lowest: usize,
    /// It was another's, or an earlier life's, before: how many attempts it had is not known for sure, so
    /// that each is written down from now on.
    taken_over: bool,
    /// The app may know of it.
    sent: bool,
    cancel_asked: bool,
    /// The store remembers that its caller cancelled it while it ran.
    cancel_kept: bool,
}

/// Where a live request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On its way to the disk: nobody has been told of it.
    Accepting,
    /// Its app is not ready.
    HeldBack,
    Engine,
}

impl Live {
    fn new(app: &str, path: &str, place: Place) -> Self {
        Self {
            app: app.into(),
            path: path.into(),
            place,
            logs: Vec::new(),
            changed: None,
            lowest: usize::MAX,
            taken_over: false,
            sent: false,
            cancel_asked: false,
            cancel_kept: false,
        }
    }

    fn tell(&self) {
        if let Some(changed) = &self.changed {
            changed.send_modify(|count| *count += 1);
        }
    }

    fn subscribe(&mut self) -> watch::Receiver<u64> {
        self.changed.get_or_insert_with(|| watch::channel(0).0).subscribe()
    }

    /// The position to report where it stands at `position` now.
    fn reported(&mut self, position: usize) -> usize {
        self.lowest = self.lowest.min(position);
        self.lowest
    }
}

impl Queue {
    fn live(&self) -> MutexGuard<'_, Requests> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held_back(&self) -> MutexGuard<'_, BTreeMap<String, VecDeque<QueuedHead>>> {
        self.held_back.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, id: RequestId) {
        if let Some(live) = self.live().by_id.get(&id) {
            live.tell();
        }
    }

    /// Lets go of a request that is complete, or is another node's.
    fn forget(&self, id: RequestId) -> Option<Live> {
        let live = self.live().by_id.remove(&id);
        if let Some(live) = &live {
            live.tell();
        }
        live
    }

    pub(crate) fn watch(&self, id: RequestId) -> Option<watch::Receiver<u64>> {
        let here = self.live().by_id.get_mut(&id).map(Live::subscribe);
        here.or_else(|| self.watched.subscribe(id))
    }

    pub(crate) fn runner_ended(&self, runner: RunnerId) {
        self.log_ends.forget(runner);
    }

    /// Requests of an app that wait for it to be ready.
    pub(crate) fn held_back_count(&self, app: &str) -> usize {
        self.held_back().get(app).map_or(0, VecDeque::len)
    }

    /// Notes that the app gets the request now, unless it was cancelled before.
    fn begin(&self, id: RequestId) -> bool {
        match self.live().by_id.get_mut(&id) {
            Some(live) if live.cancel_asked => false,
            Some(live) => {
                live.sent = true;
                true
            }
            None => true,
        }
    }
}

fn store_priority(priority: Priority) -> glowplug_store::Priority {
    match priority {
        Priority::Normal => glowplug_store::Priority::Normal,
        Priority::Low => glowplug_store::Priority::Low,
    }
}

fn engine_priority(priority: glowplug_store::Priority) -> Priority {
    match priority {
        glowplug_store::Priority::Normal => Priority::Normal,
        glowplug_store::Priority::Low => Priority::Low,
    }
}
