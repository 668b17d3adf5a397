//! How SQLite's errors become the store's.

use std::path::Path;

use rusqlite::ErrorCode;

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
pub(super) enum Fault {
    /// What is on the disk is not what was written.
    Damaged(String),
    /// It may work again: the disk was full, the file locked, the device in error.
    Passing(String),
}

impl Failure {
    pub(super) fn into_error(self, operation: &'static str, path: &Path) -> StoreError {
        match self {
            Self::Refused(error) => error,
            Self::Fault(fault) => fault.into_error(operation, path),
        }
    }
}

impl Fault {
    pub(super) fn into_error(self, operation: &'static str, path: &Path) -> StoreError {
        match self {
            Self::Damaged(problem) => {
                StoreError::Corrupt { path: path.display().to_string(), problem }
            }
            Self::Passing(problem) => StoreError::Unavailable { operation, problem },
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;

        if matches!(
            error,
            E::FromSqlConversionFailure(..)
                | E::IntegralValueOutOfRange(..)
                | E::InvalidColumnType(..)
                | E::Utf8Error(..)
        ) {
            return Self::Damaged(error.to_string());
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            Some(ErrorCode::DiskFull) => {
                Self::Passing(format!("{error}; free some space on the disk of the database"))
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Passing(format!(
                "{error}; close the other program that has the database open"
            )),
            _ => Self::Passing(error.to_string()),
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
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
