//! When a connection ends though its caller keeps it open: the gateway closes, or nothing was asked on it
//! for too long.
//!
//! An exchange costs no timer: it is counted, and the count is looked at once per idle time. So an idle
//! connection closes after that time, and before twice that time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio_util::sync::CancellationToken;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Closing,
    Idle,
}

/// The exchanges of one connection: its count is odd while there is one.
#[derive(Debug, Default)]
pub(super) struct Exchanges(AtomicU64);

/// An exchange, until its answer has been made.
#[derive(Debug)]
pub(crate) struct OpenExchange(Arc<Exchanges>);

impl OpenExchange {
    /// HTTP/1.1 has one exchange at a time on a connection.
    pub(super) fn begin(exchanges: &Arc<Exchanges>) -> Self {
        exchanges.0.fetch_add(1, Ordering::Relaxed);
        Self(exchanges.clone())
    }
}

impl Drop for OpenExchange {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Exchanges {
    async fn idle(&self, timeout: Duration) {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(timeout).await;
            if self.was_idle(&mut before) {
                return;
            }
        }
    }

    /// Whether there was no exchange since the last look.
    fn was_idle(&self, before: &mut u64) -> bool {
        let now = self.0.load(Ordering::Relaxed);
        now.is_multiple_of(2) && now == std::mem::replace(before, now)
    }
}

/// Waits for the end of a connection.
pub(super) fn ending(
    closing: CancellationToken,
    exchanges: Arc<Exchanges>,
    idle_timeout: Duration,
) -> Seldom<impl Future<Output = Ending>> {
    Seldom::new(async move {
        tokio::select! {
            () = closing.cancelled() => Ending::Closing,
            () = exchanges.idle(idle_timeout) => Ending::Idle,
        }
    })
}

/// A future that wakes its task rarely, in a task that is woken often: it is polled only after its own
/// wake-ups.
pub(super) struct Seldom<F> {
    future: Pin<Box<F>>,
    due: Arc<Due>,
    waker: Waker,
}

struct Due {
    is_due: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Due {
    fn wake(self: Arc<Self>) {
        self.is_due.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<F> Seldom<F> {
    fn new(future: F) -> Self {
        // The first poll is owed to it.
        let due = Arc::new(Due { is_due: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { future: Box::pin(future), waker: due.clone().into(), due }
    }
}

impl<F: Future> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.due.task.register(cx.waker());
        if this.due.is_due.load(Ordering::Acquire) {
            this.due.is_due.store(false, Ordering::Release);
            this.future.as_mut().poll(&mut Context::from_waker(&this.waker))
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn only_a_connection_without_an_exchange_is_idle() {
        let exchanges = Arc::new(Exchanges::default());
        let mut before = 0;
        assert!(exchanges.was_idle(&mut before));
        let open = OpenExchange::begin(&exchanges);
        assert!(!exchanges.was_idle(&mut before), "one began");
        assert!(!exchanges.was_idle(&mut before), "it goes on");
        drop(open);
        assert!(!exchanges.was_idle(&mut before), "it ended");
        assert!(exchanges.was_idle(&mut before));
        drop(OpenExchange::begin(&exchanges));
        assert!(!exchanges.was_idle(&mut before), "one began and ended");
        assert!(exchanges.was_idle(&mut before));
    }

    #[tokio::test]
    async fn an_idle_connection_ends() {
        let exchanges = Arc::new(Exchanges::default());
        let open = OpenExchange::begin(&exchanges);
        let mut ending = ending(CancellationToken::new(), exchanges, SHORT);
        assert!(timeout(10 * SHORT, &mut ending).await.is_err(), "an answer may take its time");
        drop(open);
        assert_eq!(timeout(LONG, ending).await, Ok(Ending::Idle));
    }

    #[tokio::test]
    async fn closing_ends_a_connection_at_once() {
        let closing = CancellationToken::new();
        let mut ending = ending(closing.clone(), Arc::default(), 2 * LONG);
        assert!(timeout(SHORT, &mut ending).await.is_err());
        closing.cancel();
        assert_eq!(timeout(LONG, ending).await, Ok(Ending::Closing));
    }
}
