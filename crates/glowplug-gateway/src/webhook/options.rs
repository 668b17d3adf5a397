//! How webhooks are called, and where the limits are.

use std::path::PathBuf;
use std::time::Duration;

use super::address::Cidr;

/// How webhooks are called. The defaults are those of a node whose config says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookOptions {
    /// Addresses that may be called although they are not of the public Internet.
    pub allow: Vec<Cidr>,
    /// Calls under way at the same time, in all. Beyond it they wait.
    pub concurrency_max: usize,
    /// Of these, how many to the same host. Beyond it they wait, and others go first.
    pub per_host_max: usize,
    /// Until an address accepts the connection; the next address of the host is tried then.
    pub connect_timeout: Duration,
    /// Of the first call of a webhook, from resolving its name to the head of the answer.
    pub first_timeout: Duration,
    /// The same of every further call.
    pub timeout: Duration,
    /// Calls of one webhook. After the last it has failed.
    pub calls_max: u32,
    /// Between the first call and the second; doubles from call to call.
    pub first_delay: Duration,
    /// Certificates, in PEM, of authorities to trust beside those of the system.
    pub ca_file: Option<PathBuf>,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            concurrency_max: 64,
            per_host_max: 8,
            connect_timeout: Duration::from_secs(10),
            first_timeout: Duration::from_secs(15),
            timeout: Duration::from_mins(2),
            calls_max: 31,
            first_delay: Duration::from_secs(5),
            ca_file: None,
        }
    }
}

/// Limits that no config changes.
pub mod limits {
    use std::time::Duration;

    /// Bytes of an answer that go into the payload. Of a larger one the receiver is told to fetch it.
    pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;
    /// Bytes of a webhook's URL. A longer one is refused at submit.
    pub const URL_BYTES_MAX: usize = 8 * 1024;
    /// Addresses of one host that are tried in one call.
    pub const ADDRESSES_MAX: usize = 4;
    /// Bytes read of a receiver's answer, which nobody looks at. Then the connection closes.
    pub const RESPONSE_BYTES_MAX: usize = 64 * 1024;
    /// For the body of a receiver's answer. Then the connection closes; its status counts all the same.
    pub const RESPONSE_BODY_TIMEOUT: Duration = Duration::from_secs(2);
    /// Bytes of the head of a receiver's answer, and its header fields. Beyond them the call fails.
    pub const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;
    pub const RESPONSE_HEADER_COUNT_MAX: usize = 100;
    /// Bytes of the file with further authorities. A larger one is refused.
    pub const CA_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
}
