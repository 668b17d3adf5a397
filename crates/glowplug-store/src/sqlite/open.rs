//! Opening a database file, and refusing one that must not be touched.
//!
//! Everything that can be found wrong is looked for over a read-only connection, before anything is
//! written: not a database, another program's, a newer version's, damaged. Only then is the file
//! opened for writing and migrated.
//!
//! A crash of the process cannot damage the file, a failing disk can. The write-ahead log is removed
//! by a clean shutdown, so its presence says that the last one was not: then the file is checked page
//! by page if it is small enough for that to take a moment, and otherwise only the tables without
//! which the node cannot start. Damage elsewhere shows when it is read, as [`StoreError::Corrupt`].

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::failure::Fault;
use super::schema::{APPLICATION_ID, MIGRATIONS, migrate, newest, version};
use super::{Durability, SqliteOptions};
use crate::store::{Result, StoreError};

/// The largest file that is checked as a whole after a crash: about a second on a slow disk.
const FULL_CHECK_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The tables that are checked whatever the size of the file. They are small.
const VITAL_TABLES: [&str; 4] = ["node", "pending", "settings", "keys"];
/// Connections that read side by side.
pub(super) const READERS: usize = 4;
/// Pages of the write-ahead log (1 to 16 MB) after which it is moved into the database. Fewer where the
/// reserve is small: a log that is moved takes its room twice, and must never need more than there is.
const WAL_CHECKPOINT_PAGES: std::ops::RangeInclusive<u64> = 250..=4_000;
const WAL_SHARE_OF_RESERVE: u64 = 16;
const PAGE_BYTES: u64 = 4_096;
/// The size to which the write-ahead log is cut after it was larger, in checkpoints.
const WAL_KEPT_CHECKPOINTS: u64 = 4;
/// Memory for pages of the writing connection.
const WRITER_CACHE_KIB: i32 = 16 * 1024;
/// Prepared statements kept per connection: more than there are.
const STATEMENTS_MAX: usize = 64;
/// Requests and key hashes are nobody else's business.
pub(super) const FILE_MODE: u32 = 0o600;

const OPERATION: &str = "open the database";

#[derive(Debug)]
pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) readers: Vec<Connection>,
    pub(super) lock: File,
}

pub(super) fn open(path: &Path, options: &SqliteOptions) -> Result<Opened> {
    let lock = lock(path)?;
    let last_shutdown_was_clean = length(&with_suffix(path, "-wal"))? == 0;
    if length(path)? > 0 {
        inspect(path, last_shutdown_was_clean)?;
    } else {
        // SQLite gives the files beside it the same mode.
        create(path).map_err(|error| unavailable(path, &error))?;
    }
    let explain = |error: rusqlite::Error| fault(path, error);
    let mut writer = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, options).map_err(explain)?;
    configure_writer(&writer, options, path)?;
    migrate(&mut writer, MIGRATIONS).map_err(explain)?;
    let readers = (0..READERS)
        .map(|_| connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, options))
        .collect::<rusqlite::Result<_>>()
        .map_err(explain)?;
    Ok(Opened { writer, readers, lock })
}

/// Two nodes on one queue would both run every request. The lock goes with the process.
fn lock(path: &Path) -> Result<File> {
    let beside = with_suffix(path, ".lock");
    let file = create(&beside).map_err(|error| unavailable(&beside, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Unavailable {
            operation: OPERATION,
            problem: format!(
                "another glowplug uses {}; stop it or choose another data directory",
                path.display()
            ),
        }),
        Err(TryLockError::Error(error)) => Err(unavailable(&beside, &error)),
    }
}

pub(super) fn look_at(path: &Path) -> Result<()> {
    if length(path)? == 0 { Ok(()) } else { inspect(path, false) }
}

/// Looks for every reason not to write to the file.
fn inspect(path: &Path, last_shutdown_was_clean: bool) -> Result<()> {
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, &SqliteOptions::default())
        .map_err(|error| fault(path, error))?;
    let (found, known) = (version(&conn).map_err(|error| fault(path, error))?, newest(MIGRATIONS));
    let owner: u32 = conn
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(|error| fault(path, error))?;
    let tables: u32 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|error| fault(path, error))?;
    // A crash before the first migration leaves a database with nothing in it, which is nobody's.
    let is_blank = tables == 0 && found == 0;
    if owner != APPLICATION_ID && !is_blank {
        return Err(damaged(path, "it belongs to another program"));
    }
    if found > known {
        return Err(StoreError::TooNew { path: path.display().to_string(), found, known });
    }
    if !last_shutdown_was_clean {
        tracing::info!(path = %path.display(), "checking the database after an unclean shutdown");
        let whole = length(path)? <= FULL_CHECK_BYTES_MAX;
        check_pages(&conn, whole).map_err(|fault| fault.into_error(OPERATION, path))?;
    }
    Ok(())
}

fn check_pages(conn: &Connection, whole: bool) -> Result<(), Fault> {
    let mut checks = Vec::new();
    if whole {
        checks.push("PRAGMA quick_check(1)".to_owned());
    } else {
        for table in VITAL_TABLES {
            if conn.table_exists(None, table)? {
                checks.push(format!("PRAGMA quick_check({table})"));
            }
        }
    }
    for check in checks {
        let verdict: String = conn.query_row(&check, [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(Fault::Damaged(verdict.replace('\n', ": ")));
        }
    }
    Ok(())
}

fn connect(
    path: &Path,
    access: OpenFlags,
    options: &SqliteOptions,
) -> rusqlite::Result<Connection> {
    // Each connection stays with one thread, and a path is never a URI.
    let conn = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(options.busy_timeout)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(conn)
}

fn configure_writer(conn: &Connection, options: &SqliteOptions, path: &Path) -> Result<()> {
    let explain = |error: rusqlite::Error| fault(path, error);
    let mode: String = conn
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(explain)?;
    if mode != "wal" {
        return Err(StoreError::Unavailable {
            operation: OPERATION,
            problem: format!(
                "the file system of {} has no shared memory; put the data directory on a local disk",
                path.display()
            ),
        });
    }
    let synchronous = match options.durability {
        Durability::PowerLoss => "FULL",
        Durability::ProcessCrash => "OFF",
    };
    let share = options.disk_reserve_bytes / WAL_SHARE_OF_RESERVE / PAGE_BYTES;
    let checkpoint_pages = share.clamp(*WAL_CHECKPOINT_PAGES.start(), *WAL_CHECKPOINT_PAGES.end());
    let wal_kept_bytes = WAL_KEPT_CHECKPOINTS * checkpoint_pages * PAGE_BYTES;
    let (checkpoint_pages, wal_kept_bytes) = (whole(checkpoint_pages), whole(wal_kept_bytes));
    let set = || {
        conn.pragma_update(None, "synchronous", synchronous)?;
        conn.pragma_update(None, "wal_autocheckpoint", checkpoint_pages)?;
        conn.pragma_update(None, "journal_size_limit", wal_kept_bytes)?;
        conn.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)
    };
    set().map_err(explain)
}

/// SQLite's integers are signed, and these numbers are small.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE).open(path)
}

/// Zero for a file that is not there.
fn length(path: &Path) -> Result<u64> {
    match path.metadata() {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(unavailable(path, &error)),
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn unavailable(path: &Path, problem: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unavailable {
        operation: OPERATION,
        problem: format!("{}: {problem}", path.display()),
    }
}

fn damaged(path: &Path, problem: &str) -> StoreError {
    StoreError::Corrupt { path: path.display().to_string(), problem: problem.to_owned() }
}

fn fault(path: &Path, error: rusqlite::Error) -> StoreError {
    match Fault::from(error) {
        Fault::Damaged(problem) => damaged(path, &problem),
        Fault::Full(problem) => StoreError::Full { operation: OPERATION, problem },
        Fault::Device(problem) | Fault::Passing(problem) => unavailable(path, &problem),
    }
}
