//! How SQLite's errors, and those of the disk, become the store's.

use std::io;
use std::path::Path;

use rusqlite::{Connection, ErrorCode};
use rustix::io::Errno;

use crate::store::StoreError;

/// Why one read or write failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The store is well, and this call asked for what it must not do.
    Refused(StoreError),
    /// The row names a file that is not there, unless the row is gone meanwhile as well.
    BodyMissing(StoreError),
    Fault(Fault),
}

/// The database could not do its part. Cloned for every write of a group that failed together.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// What is on the disk is not what was written.
    Damaged(String),
    Full(String),
    /// The device did not do as it was told. [`Fault::explained`] may know more.
    Device(String),
    /// It may work again: the file was locked, the transaction lost.
    Passing(String),
}

impl Failure {
    pub(super) fn into_error(self, operation: &'static str, path: &Path) -> StoreError {
        match self {
            Self::Refused(error) | Self::BodyMissing(error) => error,
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
            Self::Full(problem) => StoreError::Full { operation, problem },
            Self::Device(problem) | Self::Passing(problem) => {
                StoreError::Unavailable { operation, problem }
            }
        }
    }

    /// Adds what only the connection knows that met the fault: which error the device gave.
    pub(super) fn explained(self, conn: &Connection) -> Self {
        match self {
            Self::Device(problem) => {
                let error = io::Error::from_raw_os_error(system_errno(conn));
                Self::of_device(&error, format!("{problem}: {error}"))
            }
            other => other,
        }
    }

    fn of_device(error: &io::Error, problem: String) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Full(problem),
            Some(Errno::ROFS) => {
                Self::Device(format!("{problem}; make the disk of the database writable again"))
            }
            _ => Self::Device(problem),
        }
    }

    /// What went wrong with a file beside the database.
    pub(super) fn of_file(path: &Path, error: &io::Error) -> Self {
        Self::of_device(error, format!("{}: {error}", path.display()))
    }
}

#[expect(
    unsafe_code,
    reason = "SQLite keeps the error number, and the binding does not hand it out"
)]
fn system_errno(conn: &Connection) -> i32 {
    // SAFETY: the handle is that of an open connection, which this thread alone uses, and it is used
    // for a call that reads one number.
    unsafe { rusqlite::ffi::sqlite3_system_errno(conn.handle()) }
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
            Some(ErrorCode::DiskFull) => Self::Full(error.to_string()),
            Some(ErrorCode::SystemIoFailure) => Self::Device(error.to_string()),
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
