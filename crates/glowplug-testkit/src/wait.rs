//! Waits for a condition instead of for time.

use std::time::Duration;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until `look` finds something. Panics with `what` when `bound` has passed.
pub fn wait_until<T>(what: &str, bound: Duration, look: impl FnMut() -> Option<T>) -> T {
    wait_for(bound, look).unwrap_or_else(|| panic!("{what}: not within {bound:?}"))
}

/// Waits until `look` finds something, or `bound` has passed.
pub fn wait_for<T>(bound: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let looks = bound.as_millis() / LOOK_INTERVAL.as_millis() + 1;
    for _ in 0..looks {
        let found = look();
        if found.is_some() {
            return found;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    None
}

/// As [`wait_until`], for conditions that must be awaited.
pub async fn eventually<T, F>(what: &str, bound: Duration, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    let found = tokio::time::timeout(bound, looking).await.ok();
    found.unwrap_or_else(|| panic!("{what}: not within {bound:?}"))
}
