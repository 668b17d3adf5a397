//! A network link of a known rate and delay between the programs of a bench and a registry on this machine.
//!
//! ```text
//! client ══ loopback ══ Link ─ paced to the rate ─ held for the delay ─ loopback ══ registry
//! ```
//!
//! All connections share the rate, each direction by itself; every byte comes late by the delay. A connection
//! is made late by a round trip, as it would be. What it does not have is TCP's slow start, which favours
//! nobody: over 20 ms it costs a connection about 0.2 s. Kernels without `netem` can be measured on as well,
//! and a registry on loopback is one that every engine speaks plain HTTP to.
//!
//! What is under way is limited: [`CHUNKS_MAX`] parts of [`CHUNK_BYTES`] for each direction of a connection,
//! and [`CONNECTIONS_MAX`] connections.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::median;
use crate::stopwatch::Stopwatch;

/// Half a round trip.
const DELAY: Duration = Duration::from_millis(10);
const BITS_PER_SECOND: f64 = 1e9;
const CHUNK_BYTES: usize = 32 << 10;
/// More than is under way at the full rate: 10 ms hold 1.25 MB.
const CHUNKS_MAX: usize = 64;
/// Further connections are refused.
const CONNECTIONS_MAX: usize = 64;
/// Nobody reserves the link for longer than this ahead, or others would wait behind what is not there yet.
const AHEAD_MAX: Duration = Duration::from_millis(2);
/// Round trips that are measured before anything else is.
const PINGS: usize = 20;
const PROBE_BYTES: usize = 64 << 20;
/// A link that is measured outside of these, as often as this, is not what is said of it.
const TRIES_MAX: usize = 3;
const ROUND_TRIP_MILLIS: std::ops::Range<f64> = 19.9..30.0;
const MEGABITS_PER_SECOND: std::ops::Range<f64> = 900.0..1_050.0;

/// A link to a port of this machine. It ends with this value, its connections with their ends.
#[derive(Debug)]
pub(super) struct Link {
    /// Where the link's near end listens, on loopback.
    pub(super) port: u16,
    ending: Arc<AtomicBool>,
}

/// What a link was measured to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) round_trip_millis: f64,
    pub(super) megabits_per_second: f64,
}

/// When one direction is free again, on the clock of the link.
#[derive(Debug)]
struct Direction {
    clock: Stopwatch,
    free_at: Mutex<Duration>,
}

/// Bytes and when they are to arrive, on the clock of the link.
struct Chunk {
    due: Duration,
    bytes: Vec<u8>,
}

impl Link {
    pub(super) fn to(target: u16) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot make a network link")?;
        let port = listener.local_addr().context("cannot make a network link")?.port();
        let ending = Arc::new(AtomicBool::new(false));
        let link = Self { port, ending: Arc::clone(&ending) };
        let directions = [Direction::new(), Direction::new()].map(Arc::new);
        let open = Arc::new(AtomicUsize::new(0));
        spawn("link", move || {
            for near in listener.incoming().flatten() {
                if ending.load(Ordering::Relaxed) {
                    return;
                }
                if open.load(Ordering::Relaxed) < CONNECTIONS_MAX {
                    let (directions, open) = (directions.clone(), Arc::clone(&open));
                    open.fetch_add(1, Ordering::Relaxed);
                    let connection = move || {
                        // What goes wrong with a connection its two ends find out.
                        let _ = connect(near, target, &directions);
                        open.fetch_sub(1, Ordering::Relaxed);
                    };
                    let _ = spawn("connection", connection);
                }
            }
        })?;
        Ok(link)
    }

    /// Measures a link like this one, and fails unless it is what it is said to be.
    pub(super) fn measure() -> Result<Seen> {
        let mut seen = Self::measure_once()?;
        for _ in 1..TRIES_MAX {
            if seen.is_as_said() {
                return Ok(seen);
            }
            seen = Self::measure_once()?;
        }
        if !seen.is_as_said() {
            bail!(
                "the link was to have 20 ms and 1 Gbit/s, and has {:.1} ms and {:.0} Mbit/s: this machine is \
                 too busy to measure on",
                seen.round_trip_millis,
                seen.megabits_per_second
            );
        }
        Ok(seen)
    }

    /// To a program of our own.
    fn measure_once() -> Result<Seen> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot measure the link")?;
        let port = listener.local_addr().context("cannot measure the link")?.port();
        spawn("far end", move || {
            if let Ok((far, _)) = listener.accept() {
                // Seen by the near end.
                let _ = answer(far);
            }
        })?;
        let link = Self::to(port)?;
        probe(link.port).context("cannot measure the link")
    }
}

impl Seen {
    fn is_as_said(self) -> bool {
        ROUND_TRIP_MILLIS.contains(&self.round_trip_millis)
            && MEGABITS_PER_SECOND.contains(&self.megabits_per_second)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        // Wakes the listener so that it looks.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Direction {
    fn new() -> Self {
        Self { clock: Stopwatch::start(), free_at: Mutex::default() }
    }

    /// Waits until the link takes these bytes. When they will have arrived.
    fn send(&self, bytes: usize) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "some thousand bytes")]
        let takes = Duration::from_secs_f64(bytes as f64 * 8.0 / BITS_PER_SECOND);
        let sent = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            *free_at = (*free_at).max(self.clock.elapsed()) + takes;
            *free_at
        };
        self.wait_until(sent.saturating_sub(AHEAD_MAX));
        sent + DELAY
    }

    fn wait_until(&self, moment: Duration) {
        let left = moment.saturating_sub(self.clock.elapsed());
        if !left.is_zero() {
            thread::sleep(left);
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.into()).spawn(work).context("cannot start a thread")
}

/// Carries a connection in both directions until both have ended.
fn connect(near: TcpStream, target: u16, [up, down]: &[Arc<Direction>; 2]) -> Result<()> {
    // The handshake's round trip.
    thread::sleep(DELAY * 2);
    let far = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).context("nobody is there")?;
    for end in [&near, &far] {
        end.set_nodelay(true).context("cannot send at once")?;
    }
    let both = || -> io::Result<_> { Ok((near.try_clone()?, far.try_clone()?)) };
    let (near_again, far_again) = both().context("cannot use a connection twice")?;
    let back = carry(far_again, near_again, Arc::clone(down))?;
    let forth = carry(near, far, Arc::clone(up))?;
    for carrier in [back, forth].into_iter().flatten() {
        // A panic of one is seen as the end of its connection.
        let _ = carrier.join();
    }
    Ok(())
}

fn carry(
    from: TcpStream,
    to: TcpStream,
    direction: Arc<Direction>,
) -> Result<[thread::JoinHandle<()>; 2]> {
    let (sender, receiver) = sync_channel(CHUNKS_MAX);
    let late = Arc::clone(&direction);
    let reader = spawn("sends", move || take_in(from, &sender, &direction))?;
    let writer = spawn("arrives", move || give_out(to, &receiver, &late))?;
    Ok([reader, writer])
}

fn take_in(mut from: TcpStream, sender: &SyncSender<Chunk>, direction: &Direction) {
    loop {
        let mut bytes = vec![0; CHUNK_BYTES];
        match from.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                bytes.truncate(count);
                let chunk = Chunk { due: direction.send(count), bytes };
                if sender.send(chunk).is_err() {
                    // Nobody takes it any more; whoever sends is told.
                    let _ = from.shutdown(Shutdown::Both);
                    return;
                }
            }
        }
    }
}

fn give_out(mut to: TcpStream, receiver: &Receiver<Chunk>, direction: &Direction) {
    while let Ok(chunk) = receiver.recv() {
        direction.wait_until(chunk.due);
        if to.write_all(&chunk.bytes).is_err() {
            return;
        }
    }
    // The other direction may go on.
    let _ = to.shutdown(Shutdown::Write);
}

/// The far end of a measurement: gives back [`PINGS`] bytes one by one, then sends [`PROBE_BYTES`].
fn answer(mut far: TcpStream) -> io::Result<()> {
    far.set_nodelay(true)?;
    let mut ping = [0];
    for _ in 0..PINGS {
        far.read_exact(&mut ping)?;
        far.write_all(&ping)?;
    }
    let block = vec![7; CHUNK_BYTES];
    for _ in 0..PROBE_BYTES / CHUNK_BYTES {
        far.write_all(&block)?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "some million bytes")]
fn probe(port: u16) -> io::Result<Seen> {
    let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    near.set_nodelay(true)?;
    let mut ping = [1];
    let mut pings = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let watch = Stopwatch::start();
        near.write_all(&ping)?;
        near.read_exact(&mut ping)?;
        pings.push(watch.elapsed().as_secs_f64() * 1e3);
    }
    let (mut left, mut block) = (PROBE_BYTES, vec![0; CHUNK_BYTES]);
    // From the first byte on, which comes late by the delay.
    near.read_exact(&mut block[..1])?;
    let watch = Stopwatch::start();
    left -= 1;
    while left > 0 {
        let count = near.read(&mut block)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= count;
    }
    let megabits_per_second = PROBE_BYTES as f64 * 8.0 / 1e6 / watch.elapsed().as_secs_f64();
    // The first round trip is the connection's as well.
    Ok(Seen { round_trip_millis: median(&pings[1..]), megabits_per_second })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_is_paced_and_late() {
        let direction = Direction::new();
        let bytes = 1_250_000;
        let began = direction.clock.elapsed();
        let due = direction.send(bytes);
        // A busy machine can only make it later.
        assert!(due >= began + Duration::from_millis(20), "{due:?} after {began:?}");
        let second = direction.send(bytes);
        assert!(second >= due + Duration::from_millis(10), "{second:?} after {due:?}");
    }

    #[test]
    fn only_a_link_of_the_rate_and_delay_it_is_said_to_have_is_measured_on() {
        for (round_trip_millis, megabits_per_second, expected) in [
            (20.3, 990.0, true),
            (20.3, 600.0, false),
            (20.3, 890.0, false),
            (20.3, 1_100.0, false),
            (10.0, 990.0, false),
            (35.0, 990.0, false),
        ] {
            let seen = Seen { round_trip_millis, megabits_per_second };
            assert_eq!(seen.is_as_said(), expected, "{seen:?}");
        }
    }

    #[test]
    fn what_goes_in_comes_out_in_both_directions() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let link = Link::to(listener.local_addr().unwrap().port()).unwrap();
        let far = thread::spawn(move || {
            let (mut far, _) = listener.accept().unwrap();
            let mut said = Vec::new();
            far.read_to_end(&mut said).unwrap();
            far.write_all(&said).unwrap();
        });
        let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port)).unwrap();
        let sent: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
        near.write_all(&sent).unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        near.read_to_end(&mut back).unwrap();
        far.join().unwrap();
        assert_eq!(back, sent);
    }
}
