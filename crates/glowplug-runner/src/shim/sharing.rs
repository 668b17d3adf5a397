//! What a program holds that its clones would share with each other: files of the host.
//!
//! A restored program opens them anew, at the same path as all others that were restored from the same memory. What one
//! of them writes the others would read; and what has no name any more CRIU would make again under a name that two
//! restores at once fight for. Such a program starts plainly.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Memory of no file, which CRIU keeps with the process.
const MEMORY: [&str; 3] = ["/dev/zero (deleted)", "/memfd:", "/SYSV"];
/// How the kernel marks what has no name any more.
const NAMELESS: &str = " (deleted)";
/// Of a file's flags: to read and nothing else is zero.
const ACCESS_MODE: u32 = 0o3;

/// `Err`: what one of the processes shares, in words for the app's owner. One that ends meanwhile shares nothing.
pub(super) fn check(pids: &[i32]) -> Result<(), String> {
    for pid in pids {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        if let Some(file) = maps.lines().find_map(shared_file) {
            return Err(format!(
                "it shares memory through {file}, which would be that of all its clones (locks and queues of \
                 multiprocessing do): make such things after a start, in `after_restore`"
            ));
        }
        let folder = format!("/proc/{pid}/fd");
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if let Some(problem) = open_file(*pid, &entry.path()) {
                return Err(problem + ": close it in `before_snapshot`");
            }
        }
    }
    Ok(())
}

/// The file behind a line of a table of maps, if others can see what is written to it.
fn shared_file(line: &str) -> Option<&str> {
    let mut fields = line.splitn(6, ' ');
    let permissions = fields.nth(1)?;
    let path = fields.nth(3)?.trim_start();
    let is_shared = permissions.starts_with("rw") && permissions.ends_with('s');
    let is_memory = MEMORY.iter().any(|memory| path.starts_with(memory));
    (is_shared && path.starts_with('/') && !is_memory).then_some(path)
}

fn open_file(pid: i32, place: &Path) -> Option<String> {
    let path = fs::read_link(place).ok()?.display().to_string();
    let kind = fs::metadata(place).ok()?.file_type();
    if !path.starts_with('/') || path.starts_with("/memfd:") || kind.is_char_device() {
        return None;
    }
    if !kind.is_file() {
        return None;
    }
    if path.ends_with(NAMELESS) {
        return Some(format!("it holds {path} open, which has no name any more"));
    }
    let number = place.file_name()?.to_str()?;
    let about = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
    let flags = about.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
    (flags & ACCESS_MODE != 0).then(|| format!("it has {path} open to be written to"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_that_others_see_are_told_from_those_of_one_process() {
        let check = |line: &str, expected: Option<&str>| assert_eq!(shared_file(line), expected);
        let line = |permissions: &str, path: &str| {
            format!("7f00-7f01 {permissions} 00000000 00:19 42                 {path}")
        };
        check(&line("rw-s", "/dev/shm/sem.x (deleted)"), Some("/dev/shm/sem.x (deleted)"));
        check(&line("rw-s", "/var/lib/a b.db"), Some("/var/lib/a b.db"));
        check(&line("rw-s", "/dev/zero (deleted)"), None);
        check(&line("rw-s", "/memfd:x (deleted)"), None);
        check(&line("r--s", "/usr/lib/locale.cache"), None);
        check(&line("rw-p", "/usr/lib/libc.so"), None);
        check("7f00-7f01 rw-p 00000000 00:00 0", None);
    }

    #[test]
    fn files_that_are_written_to_are_found() {
        let own = i32::try_from(std::process::id()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let place = |file: &std::fs::File| {
            use std::os::fd::AsRawFd;
            std::path::PathBuf::from(format!("/proc/{own}/fd/{}", file.as_raw_fd()))
        };
        assert!(open_file(own, &place(file.as_file())).unwrap().contains("to be written to"));
        let reading = std::fs::File::open(file.path()).unwrap();
        assert_eq!(open_file(own, &place(&reading)), None);
        drop(file);
        assert!(open_file(own, &place(&reading)).unwrap().contains("no name any more"));
    }
}
