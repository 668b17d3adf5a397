//! Where a node listens and keeps its data, as flags of every command that is about one of this machine.

use std::path::PathBuf;

use glowplug_node::config::FlagSetting;

#[derive(Debug, Default, clap::Args)]
pub(crate) struct PlaceFlags {
    /// Where the node takes requests [default: 127.0.0.1:8642]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where the node keeps the queue, logs, caches and keys
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl PlaceFlags {
    /// What is set, as settings of the node in a config.
    pub(crate) fn settings(&self) -> Vec<FlagSetting> {
        let data_dir = self.data_dir.as_ref().map(|dir| dir.to_string_lossy().into_owned());
        let listen = self.listen.clone().map(|address| ("--listen", "listen", address));
        let data_dir = data_dir.map(|dir| ("--data-dir", "data_dir", dir));
        let flags = listen.into_iter().chain(data_dir);
        flags.map(|(flag, key, value)| FlagSetting::node(flag, key, value)).collect()
    }
}
