//! The gateway's limits, each with its default and what happens beyond it.

use std::time::Duration;

/// Header fields of one message, either way. More of them answer 431 (caller) or fail the attempt (app).
pub const HEADER_COUNT_MAX: usize = 100;
/// Response headers of an app together, as fal limits them. More fail the request.
pub const RESPONSE_HEADER_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that carry connections, each with its own event loop and its own pool of runner
    /// connections.
    pub workers: usize,
    /// Open connections of callers. Beyond it new ones wait in the kernel's backlog.
    pub connections_max: usize,
    /// Bytes of a caller's header block. Beyond it: 431.
    pub header_bytes_max: usize,
    /// Bytes of a direct request's body, which is streamed. Beyond it: 413.
    pub run_body_bytes_max: u64,
    /// Bytes of a queued request's body, which is held in memory and stored. Beyond it: 413.
    pub queue_body_bytes_max: usize,
    /// From accept until the protocol is known, TLS handshake included. Beyond it the connection closes.
    pub handshake_timeout: Duration,
    /// From the end of one exchange until the head of the next is complete, so it bounds idle
    /// connections and slowly written headers alike. Beyond it, and before twice as long, the connection
    /// closes.
    pub idle_timeout: Duration,
    /// Between two events of the stream of a queued request's status: a comment keeps it alive.
    pub stream_comment_interval: Duration,
    pub forward: ForwardOptions,
    pub sockets: SocketOptions,
    /// Which web pages may use `/proxy` from a browser.
    pub proxy_origins: ProxyOrigins,
}

impl Default for Options {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            workers: cores.min(16),
            connections_max: 16_384,
            header_bytes_max: 64 * 1024,
            run_body_bytes_max: 16 * 1024 * 1024 * 1024,
            queue_body_bytes_max: 64 * 1024 * 1024,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            stream_comment_interval: Duration::from_secs(15),
            forward: ForwardOptions::default(),
            sockets: SocketOptions::default(),
            proxy_origins: ProxyOrigins::None,
        }
    }
}

/// Limits of the connections to runners.
#[derive(Clone, Debug)]
pub struct ForwardOptions {
    /// Until the runner accepts. Beyond it the attempt has not been sent.
    pub connect_timeout: Duration,
    /// Idle connections kept to one runner by one worker. Beyond it they close after use.
    pub idle_per_runner_max: usize,
    /// How long an unused connection is kept. Shorter than the keep-alive of common app servers (2 s
    /// and more), so that ours closes first and no request meets a connection that is being closed.
    pub idle_timeout: Duration,
    /// Bytes of an app's answer to a queued request, which is held in memory and stored. Beyond it the
    /// request ends with an error. Direct answers are streamed and have no limit.
    pub answer_bytes_max: usize,
}

impl Default for ForwardOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            idle_per_runner_max: 64,
            idle_timeout: Duration::from_millis(1_500),
            answer_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// Limits of websockets.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// Open sockets in all. Beyond it: 429.
    pub sockets_max: usize,
    /// Open sockets of one caller: of one key, or of one address without a key. Beyond it: 429.
    pub sockets_per_caller_max: usize,
    /// Payload of one message, either way, all its frames together. Beyond it the socket closes with 1009.
    pub message_bytes_max: u64,
    /// Without a message either way. Beyond it the socket closes.
    pub idle_timeout: Duration,
    /// Without a byte from the caller. Beyond it the caller gets a ping.
    pub ping_interval: Duration,
    /// From a ping without a byte from the caller. Beyond it the caller is taken to be gone.
    pub pong_timeout: Duration,
    /// From a close until the other side's. Beyond it the connection is cut.
    pub close_timeout: Duration,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            sockets_max: 4_096,
            sockets_per_caller_max: 1_024,
            message_bytes_max: 16 * 1024 * 1024,
            idle_timeout: Duration::from_mins(5),
            ping_interval: Duration::from_secs(20),
            pong_timeout: Duration::from_secs(20),
            close_timeout: Duration::from_secs(2),
        }
    }
}

/// The `Origin`s that get CORS headers from `/proxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyOrigins {
    /// No CORS headers: browsers refuse to use the route from another page.
    None,
    Any,
    /// Compared exactly, such as `http://localhost:3000`.
    Only(Vec<String>),
}

impl ProxyOrigins {
    pub(crate) fn allow(&self, origin: &str) -> bool {
        match self {
            Self::None => false,
            Self::Any => true,
            Self::Only(origins) => origins.iter().any(|allowed| allowed == origin),
        }
    }
}
