//! Carries a socket's bytes between a caller and its app, both ways in one task.
//!
//! ```text
//! caller ──► scanner ──► to_app ──► app
//!        ◄── outbox ◄── scanner ◄──
//! ```
//!
//! Frames are not taken apart: what passes is what came. They are only counted and followed, so that the
//! gateway knows where a frame of its own may stand. Each way holds what was read at once and not yet
//! written, and an idle socket holds nothing: reads go to a buffer that all sockets of a worker share.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frame::{Fault, Kind, Scanner, Sender};
use super::outbox::Outbox;

/// Read at once, and so the most that a way holds beside the outbox's backlog.
const READ_BYTES: usize = 16 * 1024;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

#[derive(Debug)]
pub(super) struct Passage<C, A> {
    pub(super) caller: Way<C>,
    pub(super) app: Way<A>,
    /// On its way to the app.
    to_app: BytesMut,
    pub(super) outbox: Outbox,
    /// When a message last passed, in either direction.
    pub(super) last_message: Instant,
    /// When the caller last sent something, or took something that it had kept waiting.
    pub(super) last_heard: Instant,
    /// The caller keeps something waiting.
    is_blocked: bool,
}

/// One side's connection.
#[derive(Debug)]
pub(super) struct Way<S> {
    stream: S,
    pub(super) scanner: Scanner,
    /// It sent a close frame.
    pub(super) has_closed: bool,
    /// Written to it and perhaps not yet on the wire.
    is_unflushed: bool,
}

/// How a passage ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// The caller's connection is at its end.
    CallerGone,
    /// The app's connection is at its end.
    AppGone,
    Fault(Sender, Fault),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Way<S> {
    fn new(stream: S, scanner: Scanner) -> Self {
        Self { stream, scanner, has_closed: false, is_unflushed: false }
    }

    fn poll_read<T>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Scanner, &mut bool, &[u8]) -> T,
    ) -> Poll<Option<T>> {
        READ.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    let taken = take(&mut self.scanner, &mut self.has_closed, read.filled());
                    Poll::Ready(Some(taken))
                }
                // A broken connection is at its end, too.
                Poll::Ready(_) => Poll::Ready(None),
            }
        })
    }

    /// Writes what goes. `false`: the other side takes nothing any more.
    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut impl Buf) -> Poll<bool> {
        while out.has_remaining() {
            match Pin::new(&mut self.stream).poll_write(cx, out.chunk()) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(bytes)) if bytes > 0 => {
                    out.advance(bytes);
                    self.is_unflushed = true;
                }
                Poll::Ready(_) => return Poll::Ready(false),
            }
        }
        if self.is_unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => self.is_unflushed = false,
                Poll::Ready(Err(_)) => return Poll::Ready(false),
            }
        }
        Poll::Ready(true)
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.stream).poll_shutdown(cx).map(drop)
    }

    /// Reads and forgets until the connection's end or a close frame.
    pub(super) fn poll_forget(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.has_closed {
            let read = self.poll_read(cx, |scanner, has_closed, mut bytes| {
                while let Ok(Some(part)) = scanner.next(&mut bytes) {
                    *has_closed |= part.kind == Kind::Close;
                }
            });
            match read {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

impl<C, A> Passage<C, A>
where
    C: AsyncRead + AsyncWrite + Unpin,
    A: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(caller: C, app: A, outbox: Outbox, message_bytes_max: u64) -> Self {
        let now = Instant::now();
        let scanner = |sender| Scanner::new(sender, message_bytes_max);
        Self {
            caller: Way::new(caller, scanner(Sender::Caller)),
            app: Way::new(app, scanner(Sender::App)),
            to_app: BytesMut::new(),
            outbox,
            last_message: now,
            last_heard: now,
            is_blocked: false,
        }
    }

    /// Carries on until a side is gone or sends what may not pass. What came before has then been
    /// written to the caller as far as it goes without waiting.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Passed> {
        loop {
            let to_app = self.poll_to_app(cx);
            if let Poll::Ready(Some(passed)) = to_app {
                return Poll::Ready(passed);
            }
            let to_caller = self.poll_to_caller(cx);
            if let Poll::Ready(Some(passed)) = to_caller {
                return Poll::Ready(passed);
            }
            if to_app.is_pending() && to_caller.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// One read and its write. `None`: there may be more.
    fn poll_to_app(&mut self, cx: &mut Context<'_>) -> Poll<Option<Passed>> {
        match self.poll_write_app(cx) {
            Poll::Ready(true) => {}
            // What it said before it went is still read on the other way.
            Poll::Ready(false) => self.to_app.clear(),
            Poll::Pending => return Poll::Pending,
        }
        let (to_app, last_message) = (&mut self.to_app, &mut self.last_message);
        let read = self.caller.poll_read(cx, |scanner, has_closed, mut bytes| {
            let now = Instant::now();
            while let Some(part) = scanner.next(&mut bytes)? {
                to_app.extend_from_slice(part.head);
                to_app.extend_from_slice(part.payload);
                match part.kind {
                    Kind::Data { .. } => *last_message = now,
                    Kind::Close => *has_closed = true,
                    Kind::Keepalive => {}
                }
            }
            Ok(now)
        });
        match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Some(Passed::CallerGone)),
            Poll::Ready(Some(Ok(now))) => {
                self.last_heard = now;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(fault))) => {
                Poll::Ready(Some(Passed::Fault(Sender::Caller, fault)))
            }
        }
    }

    fn poll_to_caller(&mut self, cx: &mut Context<'_>) -> Poll<Option<Passed>> {
        match self.poll_write_caller(cx) {
            Poll::Ready(false) => return Poll::Ready(Some(Passed::CallerGone)),
            Poll::Pending if !self.outbox.has_room() => return Poll::Pending,
            _ => {}
        }
        let (outbox, last_message) = (&mut self.outbox, &mut self.last_message);
        let read = self.app.poll_read(cx, |scanner, has_closed, mut bytes| {
            while let Some(part) = scanner.next(&mut bytes)? {
                outbox.put(&part);
                match part.kind {
                    Kind::Data { .. } => *last_message = Instant::now(),
                    Kind::Close => *has_closed = true,
                    Kind::Keepalive => {}
                }
            }
            Ok(())
        });
        match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Some(Passed::AppGone)),
            Poll::Ready(Some(Ok(()))) => Poll::Ready(None),
            Poll::Ready(Some(Err(fault))) => Poll::Ready(Some(Passed::Fault(Sender::App, fault))),
        }
    }

    /// Writes what waits for the caller. `false`: it is gone.
    pub(super) fn poll_write_caller(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            let writing = self.outbox.writing();
            let before = writing.len();
            let written = self.caller.poll_write(cx, writing);
            if self.is_blocked && writing.len() < before {
                self.last_heard = Instant::now();
            }
            self.is_blocked = written.is_pending();
            if written != Poll::Ready(true) || before == 0 {
                return written;
            }
        }
    }

    /// Writes what waits for the app. `false`: it is gone.
    pub(super) fn poll_write_app(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let written = self.app.poll_write(cx, &mut self.to_app);
        if self.to_app.is_empty() && self.to_app.capacity() > 0 {
            self.to_app = BytesMut::new();
        }
        written
    }

    /// Puts a frame of ours behind the caller's, if it can stand there.
    pub(super) fn say_to_app(&mut self, frame: &[u8]) {
        if self.caller.scanner.is_between_frames() && !self.caller.has_closed {
            self.to_app.extend_from_slice(frame);
        }
    }
}
