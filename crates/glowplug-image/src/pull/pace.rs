//! A budget of bytes per second, shared by all downloads.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// What may come at once after a pause.
const BURST: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: Option<u64>,
    /// When what was taken so far is paid for.
    paid_until: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, paid_until: Mutex::new(Instant::now()) }
    }

    /// Waits until these bytes are within the budget.
    pub(crate) async fn take(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        #[expect(clippy::cast_precision_loss, reason = "a pause need not be exact")]
        let cost = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let until = {
            let mut paid_until = self.paid_until.lock().await;
            let earliest = Instant::now() - BURST;
            *paid_until = (*paid_until).max(earliest) + cost;
            *paid_until
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_takers_together_keep_the_budget() {
        let pace = Pace::new(Some(1_000));
        let start = Instant::now();
        let take = || async {
            for _ in 0..10 {
                pace.take(100).await;
            }
        };
        tokio::join!(take(), take());
        let took = start.elapsed();
        assert!(
            (Duration::from_millis(1_800)..=Duration::from_millis(2_010)).contains(&took),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_budget_nobody_waits() {
        let start = Instant::now();
        Pace::new(None).take(usize::MAX).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
