//! Which wake-ups of a runner's connection reach the task that waits on it.
//!
//! The connection is made of parts that wake one another through channels. All of them are driven
//! together by one task, which has polled every part before it sleeps, so a part's wake-up would only
//! make that task run again for nothing, or, after the connection was pooled, some other request's task.
//! So the parts get a waker that does no more than leave a note, and only what comes from outside
//! reaches the task: the runner's socket, and the caller's request body.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::body::{RequestBody, RequestBodyError};

#[derive(Debug)]
pub(crate) struct Relay {
    task: Mutex<Waker>,
    /// A part asked to be polled again.
    noted: AtomicBool,
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.noted.store(true, Ordering::Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.noted.store(true, Ordering::Relaxed);
    }
}

impl Relay {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { task: Mutex::new(Waker::noop().clone()), noted: AtomicBool::new(false) })
    }

    /// Polls a connection's parts for the task of `cx`.
    pub(super) fn drive<T>(
        &self,
        parts: &Waker,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(cx.waker());
        // What was noted before is answered by this poll.
        self.noted.store(false, Ordering::Relaxed);
        let polled = poll(&mut Context::from_waker(parts));
        if polled.is_pending() && self.noted.load(Ordering::Relaxed) {
            // The connection gave up its turn with work left.
            cx.waker().wake_by_ref();
        }
        polled
    }

    /// Polls something outside: its wake-up is for the task.
    pub(super) fn outside<T>(&self, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        poll(&mut Context::from_waker(&task))
    }
}

/// The caller's body, as a part of the runner's connection.
#[derive(Debug)]
pub(super) struct RelayedBody {
    pub(super) body: RequestBody,
    pub(super) relay: Arc<Relay>,
}

impl http_body::Body for RelayedBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let this = &mut *self;
        this.relay.outside(|cx| Pin::new(&mut this.body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
