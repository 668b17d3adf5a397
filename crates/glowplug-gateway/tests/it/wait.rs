//! Waiting for a state instead of a time.

use std::time::Duration;

/// Long enough for a loaded machine; a test that gets here has failed.
pub(crate) const BOUND: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Waits until `found` finds something.
pub(crate) async fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let polling = async {
        loop {
            if let Some(found) = found() {
                return found;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    bounded(what, polling).await
}

pub(crate) async fn bounded<F: Future>(what: &str, future: F) -> F::Output {
    let output = tokio::time::timeout(BOUND, future).await;
    output.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}
