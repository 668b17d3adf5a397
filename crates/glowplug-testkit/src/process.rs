//! Looks at the processes of this machine.

use std::path::Path;

/// Process ids of the living (not zombie) processes whose command line or environment holds `marker`,
/// such as a test's own directory. Includes nothing of processes that may not be read.
pub fn processes_with(marker: &str) -> Vec<u32> {
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            (pid != own && mentions(&entry.path(), marker)).then_some(pid)
        })
        .collect()
}

fn mentions(process: &Path, marker: &str) -> bool {
    ["cmdline", "environ"].iter().any(|file| {
        std::fs::read(process.join(file))
            .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(marker))
    })
}
