//! What the desk leaves to others, because it takes time.

use std::sync::Arc;
use std::time::Duration;

use glowplug_core::decision::{Decision, StartCause, StopReason};
use glowplug_core::request::Refusal;
use glowplug_core::resources::Allocation;
use glowplug_core::{AppId, Lease, RequestId, RunnerAddress, RunnerId};
use glowplug_gateway::host::Revocation;

/// What takes time and is done outside the lock, in this order.
#[derive(Debug)]
pub(crate) enum Work {
    Start {
        runner: RunnerId,
        app: AppId,
        revision: u32,
        allocation: Allocation,
        cause: StartCause,
    },
    /// Look after a runner of an earlier life of the node.
    Watch {
        runner: RunnerId,
        app: AppId,
    },
    Stop {
        runner: RunnerId,
        grace: Option<Duration>,
        reason: StopReason,
    },
    Freeze {
        runner: RunnerId,
    },
    Thaw {
        runner: RunnerId,
    },
    Probe {
        runner: RunnerId,
    },
    Forget {
        runner: RunnerId,
    },
    /// Run one attempt of a queued request.
    Attempt(Attempt),
    /// Tell the app that the caller of a queued request cancelled.
    Interrupt {
        lease: Lease,
        address: Arc<RunnerAddress>,
    },
    /// A queued request ends without an answer of the app's.
    CompleteRefused {
        request: RequestId,
        refusal: Refusal,
        attempts: u32,
    },
    /// Write down what was decided.
    Journal(Decision),
}

#[derive(Debug)]
pub(crate) struct Attempt {
    pub lease: Lease,
    pub address: Arc<RunnerAddress>,
    pub revoked: Revocation,
}
