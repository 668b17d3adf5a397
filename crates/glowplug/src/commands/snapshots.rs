//! `glowplug snapshots`
//!
//! Looks at the disk itself: whoever may, can do so whether a node runs or not, and a node that runs looks at
//! the disk before it uses any.

use glowplug_artifacts::{SnapshotRow, Snapshots};
use indicatif::HumanBytes;
use serde::Serialize;

use crate::cli::Context;
use crate::failure::Failure;
use crate::output::{Output, age, plain};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// The snapshots on this machine's disk, and what became of those that are not used
    List,
    /// Read all of a snapshot, or of every one, and put what is damaged in quarantine; exit code 1 if any is
    Verify {
        /// As `glowplug snapshots list` shows it
        key: Option<String>,
    },
    /// Remove a snapshot, or what is known against it, so that another is taken
    Drop {
        /// As `glowplug snapshots list` shows it
        key: String,
    },
}

#[derive(Debug, Serialize)]
struct Verified {
    key: String,
    /// `None`: it is good.
    problem: Option<String>,
}

pub(crate) fn run(command: &Command, context: &Context) -> Result<(), Failure> {
    let node = context.config(Vec::new())?.config.node;
    let dir = node.data_dir.join(glowplug_node::SNAPSHOTS_DIR);
    let store = Snapshots::new(dir, node.warmth.snapshot_bytes_max);
    match command {
        Command::List => context.output.value(&store.list(), |rows| table(context.output, rows)),
        Command::Verify { key } => verify(&store, key.as_deref(), context.output),
        Command::Drop { key } => {
            store.remove(key).map_err(Failure::user)?;
            context.output.note(&format!("{key} is gone"));
            Ok(())
        }
    }
}

fn verify(store: &Snapshots, key: Option<&str>, output: Output) -> Result<(), Failure> {
    let all = store.list().into_iter().filter(|row| row.quarantined.is_none()).map(|row| row.key);
    let keys = key.map_or_else(|| all.collect(), |key| vec![key.to_owned()]);
    let look = |key: String| {
        let problem = store.verify(&key).err().map(|error| error.to_string());
        Verified { key, problem }
    };
    let verified: Vec<Verified> = keys.into_iter().map(look).collect();
    output.value(&verified, |verified| {
        let say = |row: &Verified| {
            let problem = row.problem.as_deref().map_or_else(|| "good".to_owned(), plain);
            vec![row.key.clone(), problem]
        };
        let rows = verified.iter().map(say).collect();
        output.table(&["KEY", "STATE"], rows, "there are no snapshots")
    })?;
    if verified.iter().all(|row| row.problem.is_none()) {
        return Ok(());
    }
    Err(Failure::user("a snapshot is damaged or in quarantine: its app starts without one"))
}

fn table(output: Output, rows: &[SnapshotRow]) -> String {
    let row = |row: &SnapshotRow| {
        let ago = |at: u64| if at == 0 { "-".to_owned() } else { age(at) };
        let state = row.quarantined.as_deref().map_or_else(
            || "good".to_owned(),
            |reason| format!("in quarantine: {}", plain(reason)),
        );
        vec![
            row.key.clone(),
            plain(&row.app),
            HumanBytes(row.bytes).to_string(),
            ago(row.made_at_micros),
            ago(row.used_at_micros),
            state,
        ]
    };
    let header = ["KEY", "APP", "SIZE", "MADE", "USED", "STATE"];
    output.table(&header, rows.iter().map(row).collect(), "there are no snapshots")
}
