//! A file that a command writes as a whole, or standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

use crate::failure::Failure;

/// Stands for standard output, and standard input.
const STANDARD: &str = "-";

pub(crate) fn is_stdout(path: &Path) -> bool {
    path == Path::new(STANDARD)
}

/// Where it goes: under its name only when it is whole.
pub(crate) struct Target {
    out: BufWriter<Box<dyn Write>>,
    bytes: u64,
    pub(crate) progress: ProgressBar,
    /// What it is called until then, and afterwards.
    names: Option<(PathBuf, PathBuf)>,
}

impl Target {
    pub(crate) fn open(path: &Path, progress: ProgressBar) -> Result<Self, Failure> {
        if is_stdout(path) {
            let out: Box<dyn Write> = Box::new(io::stdout());
            return Ok(Self { out: BufWriter::new(out), bytes: 0, progress, names: None });
        }
        if is_special(path) {
            let file = OpenOptions::new().write(true).open(path);
            let out: Box<dyn Write> = Box::new(file.map_err(|error| unwritable(path, &error))?);
            return Ok(Self { out: BufWriter::new(out), bytes: 0, progress, names: None });
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(|error| unwritable(&partial, &error))?;
        let out: Box<dyn Write> = Box::new(file);
        let names = Some((partial, path.to_owned()));
        Ok(Self { out: BufWriter::new(out), bytes: 0, progress, names })
    }

    pub(crate) fn finish(mut self) -> Result<u64, Failure> {
        self.out.flush()?;
        if let Some((partial, path)) = self.names.take() {
            std::fs::rename(&partial, &path).map_err(|error| unwritable(&path, &error))?;
        }
        Ok(self.bytes)
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        self.progress.inc(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What was begun and not finished is of no use.
impl Drop for Target {
    fn drop(&mut self) {
        if let Some((partial, _)) = &self.names {
            drop(std::fs::remove_file(partial));
        }
    }
}

/// A device, a pipe or a folder. A whole file must not take its place, as that of a file.
fn is_special(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| !metadata.is_file())
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::environment(format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(path: &Path) -> Result<u64, Failure> {
        let mut target = Target::open(path, ProgressBar::hidden())?;
        target.write_all(b"trace")?;
        target.finish()
    }

    #[test]
    fn a_file_is_replaced_only_by_a_whole_trace() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("week.gptrace");
        std::fs::write(&file, "before").expect("written");
        drop(Target::open(&file, ProgressBar::hidden()).expect("opened"));
        assert_eq!(std::fs::read(&file).expect("read"), b"before");
        written(&file).expect("written");
        assert_eq!(std::fs::read(&file).expect("read"), b"trace");
        assert_eq!(std::fs::read_dir(&dir).expect("listed").count(), 1);
    }

    #[test]
    fn what_is_no_file_keeps_its_place() {
        let dir = tempfile::tempdir().expect("a folder");
        // A socket stands for all of them: it needs no other end and no rights to be made.
        let socket = dir.path().join("socket");
        let _bound = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
        for special in [socket.as_path(), dir.path()] {
            assert!(written(special).is_err(), "{}", special.display());
            assert!(is_special(special), "{}", special.display());
        }
        assert_eq!(std::fs::read_dir(&dir).expect("listed").count(), 1);
    }
}
