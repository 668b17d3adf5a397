//! How a command fails, and the exit code that says whose turn it is.

use std::fmt;
use std::process::ExitCode;

use glowplug_node::config::ConfigError;

#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for cannot be done, or the app failed: exit code 1.
    User(anyhow::Error),
    /// The machine, the network or Glowplug itself is in the way: exit code 2.
    Environment(anyhow::Error),
    /// The command line makes no sense: exit code 64.
    Usage(String),
    /// Whoever read the output has gone, which is theirs to decide: exit code 0, no message.
    OutputClosed,
}

impl Failure {
    pub(crate) fn user(message: impl fmt::Display) -> Self {
        Self::User(anyhow::anyhow!("{message}"))
    }

    pub(crate) fn environment(message: impl fmt::Display) -> Self {
        Self::Environment(anyhow::anyhow!("{message}"))
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::User(_) => 1,
            Self::Environment(_) => 2,
            Self::Usage(_) => USAGE_EXIT_CODE,
            Self::OutputClosed => 0,
        })
    }
}

/// As `sysexits.h` has it.
pub(crate) const USAGE_EXIT_CODE: u8 = 64;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(error) | Self::Environment(error) => write!(f, "{error:#}"),
            Self::Usage(message) => f.write_str(message),
            Self::OutputClosed => f.write_str("the output was closed"),
        }
    }
}

/// A mistake in the config is the user's to mend; a file that cannot be read may be either's.
impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::User(error.into())
    }
}

/// Only output goes through `io::Error` unadorned; everything else says what it was about.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Environment(anyhow::Error::new(error).context("cannot write the output")),
        }
    }
}
