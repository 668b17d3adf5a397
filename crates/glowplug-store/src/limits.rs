//! How much a store keeps.

/// Log lines kept per request. Further ones are counted and dropped, and one more line, made up when
/// the log is read, says how many. The length of a line is for whoever captures it to limit.
pub const REQUEST_LOG_LINES_MAX: usize = 1_000;
/// Decision records kept in the journal; the oldest give way.
pub const JOURNAL_RECORDS_MAX: usize = 200_000;
/// The longest request or response body. Bodies are kept beside their records, and SQLite takes no
/// row above 1,000,000,000 bytes; whoever receives a body should set a lower limit of its own.
pub const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Calls of one webhook that are kept in its delivery log; the oldest give way.
pub const DELIVERY_ATTEMPTS_MAX: usize = 32;
/// The longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The limits that a store can be opened with. The defaults are the constants above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub request_log_lines_max: usize,
    pub journal_records_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            request_log_lines_max: REQUEST_LOG_LINES_MAX,
            journal_records_max: JOURNAL_RECORDS_MAX,
        }
    }
}
