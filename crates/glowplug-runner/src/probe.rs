//! Finds the moment at which a runner takes requests.
//!
//! Connecting is tried anew after a pause that grows with the time already waited, so that the pause adds
//! at most a twentieth to any start, and a slow start costs little. The first pauses are shorter than
//! the runtime's timer can be, hence the kernel's timer. Whether to give up is not decided here.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use glowplug_dial::Stream;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout};

use crate::backend::RunnerAddress;

const PAUSE_MIN: Duration = Duration::from_micros(500);
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// A pause is this part of the time waited so far.
const PAUSE_DIVISOR: u32 = 20;
/// Pauses below this need the kernel's timer.
const FINE_PAUSE_MAX: Duration = Duration::from_millis(4);
/// Connecting to this very host takes no time unless the program's queue is full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A health check that takes longer is asked again.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a health answer, this much is read; only its status counts.
const HEALTH_BODY_BYTES_MAX: usize = 64 << 10;

/// Returns once the address accepts and, if there is a health path, it answers 2xx.
pub(crate) async fn until_ready(address: &RunnerAddress, health_path: Option<&str>) {
    let start = Instant::now();
    let timer = FineTimer::new().ok();
    while !is_ready(address, health_path).await {
        let pause = (start.elapsed() / PAUSE_DIVISOR).clamp(PAUSE_MIN, PAUSE_MAX);
        match &timer {
            Some(timer) if pause < FINE_PAUSE_MAX && timer.sleep(pause).await.is_ok() => {}
            _ => tokio::time::sleep(pause).await,
        }
    }
}

async fn is_ready(address: &RunnerAddress, health_path: Option<&str>) -> bool {
    match timeout(CONNECT_TIMEOUT, Stream::connect(address)).await {
        Ok(Ok(stream)) => is_healthy(stream, health_path).await,
        _ => false,
    }
}

async fn is_healthy(stream: Stream, health_path: Option<&str>) -> bool {
    let Some(path) = health_path else { return true };
    matches!(timeout(HEALTH_TIMEOUT, ask(stream, path)).await, Ok(Some(status)) if status.is_success())
}

/// The status of one request. `None` if what answers does not speak HTTP.
async fn ask(stream: Stream, path: &str) -> Option<http::StatusCode> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.ok()?;
    let request = http::Request::get(path)
        .header(http::header::HOST, "localhost")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<bytes::Bytes>::new())
        .ok()?;
    let exchange = async {
        let response = sender.send_request(request).await.ok()?;
        let status = response.status();
        // Read to the end, so that a simple server does not see its answer cut off.
        let _ = http_body_util::Limited::new(response, HEALTH_BODY_BYTES_MAX).collect().await;
        Some(status)
    };
    // The connection makes progress only while it is polled; its own end has nothing more to say.
    tokio::select! {
        biased;
        status = exchange => status,
        () = async { let _ = connection.await; std::future::pending().await } => None,
    }
}

/// A timer finer than a millisecond.
struct FineTimer(AsyncFd<OwnedFd>);

impl FineTimer {
    fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(unsafe_code, reason = "registering a descriptor has no safe interface")]
        // SAFETY: an OwnedFd names one open descriptor for as long as it lives, and nothing here can
        // close or replace it.
        let timer = unsafe { AsyncFd::register(timer) };
        timer.map(Self).map_err(io::Error::from)
    }

    async fn sleep(&self, span: Duration) -> io::Result<()> {
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(span).map_err(io::Error::other)?,
        };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut guard = self.0.readable().await?;
            let read = guard.try_io(|timer| {
                rustix::io::read(timer.get_ref(), &mut [0; 8]).map_err(io::Error::from)
            });
            if let Ok(result) = read {
                return result.map(drop);
            }
        }
    }
}
