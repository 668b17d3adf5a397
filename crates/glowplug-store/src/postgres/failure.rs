//! How the server's errors, and its silence, become the store's.

use std::fmt;

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::error::SqlState;

use crate::store::StoreError;

/// Why one read or write failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The store is well, and this call asked for what it must not do.
    Refused(StoreError),
    Fault(Fault),
}

/// The database could not do its part. Cloned for every write of a group that failed together.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    problem: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is no connection, or it broke; what was under way may have happened.
    Away,
    /// Two transactions got into each other's way, and this one was undone. It works when it is repeated.
    Collided,
    /// Another statement of the same transaction failed.
    Aborted,
    /// The server refused one statement.
    Statement,
    /// The disk of the server is full.
    Full,
    /// What is in the tables is not what was written.
    Damaged,
}

impl Failure {
    pub(super) fn into_error(self, operation: &'static str, place: &str) -> StoreError {
        match self {
            Self::Refused(error) => error,
            Self::Fault(fault) => fault.into_error(operation, place),
        }
    }
}

impl Fault {
    pub(super) fn new(kind: Kind, problem: impl Into<String>) -> Self {
        Self { kind, problem: problem.into() }
    }

    pub(super) fn into_error(self, operation: &'static str, place: &str) -> StoreError {
        let problem = format!("{place}: {}", self.problem);
        match self.kind {
            Kind::Damaged => StoreError::Corrupt { path: place.to_owned(), problem: self.problem },
            Kind::Full => StoreError::Full { operation, problem },
            _ => StoreError::Unavailable { operation, problem },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(answer) = error.as_db_error() else {
            let problem = with_causes(&error);
            // Nearly all that the server did not say itself is about the connection.
            let is_encoding = problem.starts_with("error serializing");
            return Self::new(if is_encoding { Kind::Statement } else { Kind::Away }, problem);
        };
        let kind = kind_of(answer.code());
        let problem = match next_step(answer.code()) {
            Some(step) => format!("{}; {step}", answer.message()),
            None => answer.message().to_owned(),
        };
        Self { kind, problem }
    }
}

fn kind_of(code: &SqlState) -> Kind {
    if *code == SqlState::IN_FAILED_SQL_TRANSACTION {
        return Kind::Aborted;
    }
    if [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE].contains(code) {
        return Kind::Collided;
    }
    if *code == SqlState::DISK_FULL {
        return Kind::Full;
    }
    if [SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED].contains(code) {
        return Kind::Damaged;
    }
    // 57P: the server stops, starts or ends this connection.
    let class = code.code();
    if class.starts_with("08") || class.starts_with("57P") || class.starts_with("28") {
        return Kind::Away;
    }
    Kind::Statement
}

fn next_step(code: &SqlState) -> Option<&'static str> {
    let steps = [
        (SqlState::READ_ONLY_SQL_TRANSACTION, "connect to the primary server"),
        (
            SqlState::TOO_MANY_CONNECTIONS,
            "raise the server's max_connections or stop other clients",
        ),
        (
            SqlState::UNDEFINED_TABLE,
            "restore the schema, or start the node again to make a new one",
        ),
        (SqlState::INSUFFICIENT_PRIVILEGE, "grant the role the rights on the schema"),
        (SqlState::INVALID_CATALOG_NAME, "create the database"),
    ];
    steps.into_iter().find(|(each, _)| each == code).map(|(_, step)| step)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

impl From<PoolError> for Fault {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            PoolError::Timeout(TimeoutType::Wait) => {
                Self::new(Kind::Away, "all connections are busy; raise the number of connections")
            }
            PoolError::Timeout(_) => {
                Self::new(Kind::Away, "the server did not accept a connection in time")
            }
            other => Self::new(Kind::Away, with_causes(&other)),
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Fault(error.into())
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}
