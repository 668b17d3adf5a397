//! A copy of the whole database, made while it is in use.
//!
//! The copy is written beside its place under a temporary name and renamed when it is complete and on
//! the disk: there is never half a backup under the name that was asked for.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::failure::{Failure, Fault};
use super::open::{FILE_MODE, with_suffix};
use crate::crash::crash_point;
use crate::store::StoreError;

const OPERATION: &str = "make a backup";

pub(super) fn backup(conn: &Connection, to: &Path) -> Result<(), Failure> {
    if to.exists() {
        return Err(problem(to, &"there is a file of that name already; choose another").into());
    }
    let partial = with_suffix(to, ".partial");
    let copied = copy(conn, &partial).and_then(|()| {
        crash_point("store.backup.copied");
        put_in_place(&partial, to).map_err(|error| problem(to, &error).into())
    });
    if copied.is_err() {
        // Nothing that is left over can be taken for a backup.
        drop(std::fs::remove_file(&partial));
    }
    copied
}

/// Copies what the transaction of `conn` sees.
fn copy(conn: &Connection, partial: &Path) -> Result<(), Failure> {
    let explain = |error: io::Error| Failure::from(problem(partial, &error));
    // What is left of an earlier attempt goes.
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(partial)
        .map_err(explain)?;
    let mut target = Connection::open_with_flags(
        partial,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    // One step: the writer goes on beside a reader, and would make a copy in pieces start over.
    let every_page = -1;
    let step = Backup::new(conn, &mut target)?.step(every_page)?;
    if step != StepResult::Done {
        return Err(Fault::Passing("the database is in use by another program".to_owned()).into());
    }
    target.close().map_err(|(_, error)| error)?;
    file.sync_all().map_err(explain)
}

fn put_in_place(partial: &Path, to: &Path) -> io::Result<()> {
    renameat_with(CWD, partial, CWD, to, RenameFlags::NOREPLACE)?;
    let folder = match to.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    File::open(folder)?.sync_all()
}

fn problem(path: &Path, problem: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unavailable {
        operation: OPERATION,
        problem: format!("{}: {problem}", path.display()),
    }
}
