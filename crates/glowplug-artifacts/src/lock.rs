//! File locks, which hold among processes and within one.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

const POLL: Duration = Duration::from_millis(50);

/// Takes the lock, making its file if there is none. `on_wait` is called each time somebody else has it.
/// `None`: somebody else had it for all of `wait_max`.
pub(crate) async fn acquire(
    path: &Path,
    wait_max: Duration,
    mut on_wait: impl FnMut(),
) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).read(true).open(path)?;
    let acquire = async {
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => {
                    on_wait();
                    tokio::time::sleep(POLL).await;
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    };
    match tokio::time::timeout(wait_max, acquire).await {
        Ok(acquired) => acquired.map(|()| Some(file)),
        Err(_) => Ok(None),
    }
}
