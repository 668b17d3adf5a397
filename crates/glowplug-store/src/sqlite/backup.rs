//! A copy of the whole database, made while it is in use.
//!
//! The copy and the folder of its bodies are written beside their places under temporary names and renamed
//! when they are complete and on the disk: there is never half a backup under the name that was asked for.
//! Files of bodies never change, so a backup on the same disk shares them (hard links), and one on another
//! disk has copies.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::bodies::{Bodies, FOLDER_MODE, folder_of};
use super::failure::{Failure, Fault};
use super::open::{FILE_MODE, with_suffix};
use crate::crash::crash_point;
use crate::store::StoreError;

const OPERATION: &str = "make a backup";
const SELECT_FILES: &str = "SELECT body_file FROM requests WHERE body_file IS NOT NULL \
     UNION ALL SELECT body_file FROM completions WHERE body_file IS NOT NULL";

pub(super) fn backup(conn: &Connection, bodies: &Arc<Bodies>, to: &Path) -> Result<(), Failure> {
    let (partial, bodies_to) = (with_suffix(to, ".partial"), folder_of(to));
    let bodies_partial = with_suffix(&bodies_to, ".partial");
    for taken in [to, &bodies_to] {
        if taken.exists() {
            return Err(problem(taken, &"it exists already; choose another name").into());
        }
    }
    // A request that is purged meanwhile keeps its files until they are in the backup.
    let hold = bodies.hold();
    let copied = remove(&partial, &bodies_partial)
        .and_then(|()| copy(conn, &partial))
        .and_then(|()| copy_bodies(&partial, bodies, &bodies_partial))
        .and_then(|has_bodies| {
            crash_point("store.backup.copied");
            if has_bodies {
                put_in_place(&bodies_partial, &bodies_to)?;
            }
            put_in_place(&partial, to)
        });
    drop(hold);
    if copied.is_err() {
        // Nothing that is left over can be taken for a backup.
        drop(remove(&partial, &bodies_partial));
    }
    copied
}

/// Removes what is left of an earlier attempt.
fn remove(partial: &Path, bodies_partial: &Path) -> Result<(), Failure> {
    for (path, removed) in [
        (partial, std::fs::remove_file(partial)),
        (bodies_partial, std::fs::remove_dir_all(bodies_partial)),
    ] {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(problem(path, &error).into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Copies what the transaction of `conn` sees.
fn copy(conn: &Connection, partial: &Path) -> Result<(), Failure> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(partial)
        .map_err(|error| failed(partial, &error))?;
    let mut target = Connection::open_with_flags(
        partial,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    // One step: the writer goes on beside a reader, and would make a copy in pieces start over.
    let every_page = -1;
    let step = Backup::new(conn, &mut target)?
        .step(every_page)
        .map_err(|error| Fault::from(error).explained(conn))?;
    if step != StepResult::Done {
        return Err(Fault::Passing("the database is in use by another program".to_owned()).into());
    }
    target.close().map_err(|(_, error)| error)?;
    file.sync_all().map_err(|error| failed(partial, &error))
}

/// Adds the files that the copy names. Says whether there are any.
fn copy_bodies(partial: &Path, bodies: &Bodies, to: &Path) -> Result<bool, Failure> {
    let copy = Connection::open_with_flags(
        partial,
        // Nothing is written, and nobody else has the file: no log and no lock are needed beside it.
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    copy.pragma_update(None, "journal_mode", "DELETE")?;
    let mut statement = copy.prepare(SELECT_FILES)?;
    let mut names = statement.query([])?;
    let mut folders: Vec<PathBuf> = Vec::new();
    while let Some(row) = names.next()? {
        let name: String = row.get(0)?;
        let (from, to_file) = (bodies.path(&name), to.join(&name));
        let folder = to_file.parent().unwrap_or(to).to_owned();
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(&folder)
            .map_err(|error| failed(&folder, &error))?;
        if !folders.contains(&folder) {
            folders.push(folder);
        }
        match link_or_copy(&from, &to_file) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Whoever reads that body is told so, here and in the backup. The others are well.
                tracing::warn!(path = %from.display(), "the file of a body is missing");
            }
            Err(error) => return Err(failed(&from, &error)),
        }
    }
    if folders.is_empty() {
        return Ok(false);
    }
    folders.push(to.to_owned());
    for folder in folders {
        File::open(&folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| failed(&folder, &error))?;
    }
    Ok(true)
}

fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::hard_link(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            std::fs::copy(from, to)?;
            File::open(to)?.sync_all()
        }
        linked => linked,
    }
}

fn put_in_place(partial: &Path, to: &Path) -> Result<(), Failure> {
    let folder = match to.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    renameat_with(CWD, partial, CWD, to, RenameFlags::NOREPLACE)
        .map_err(io::Error::from)
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(|error| failed(to, &error))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Fault::of_file(path, error).into()
}

fn problem(path: &Path, problem: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unavailable {
        operation: OPERATION,
        problem: format!("{}: {problem}", path.display()),
    }
}
