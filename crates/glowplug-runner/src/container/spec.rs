//! What a runner's container is made of. Completely decided by the caller: nothing here reads an image.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::capabilities::Capabilities;

/// What a container's own writes may take where nobody says otherwise.
const WRITABLE_BYTES_DEFAULT: u64 = 1 << 30;
/// Shared memory: what the field's container engines give.
const SHARED_MEMORY_BYTES_DEFAULT: u64 = 64 << 20;

/// The world in which a runner's program runs instead of the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub root: Root,
    /// In this order, after everything else is mounted.
    pub binds: Vec<Bind>,
    /// Places in memory, empty at the start.
    pub scratch: Vec<Scratch>,
    pub hostname: String,
    pub user: ContainerUser,
    pub network: Network,
    /// The port that the program listens on in a network of its own, where no other program can have taken
    /// it. Without meaning on the host's network.
    pub port: u16,
    /// Device nodes of the host, by path, beside the few that every container has.
    pub devices: Vec<PathBuf>,
    /// Of `/dev/shm`. Counts as the runner's memory.
    pub shared_memory_bytes: u64,
    pub system_calls: SystemCalls,
    /// What root may do in the container. Other users may do nothing of it.
    pub capabilities: Capabilities,
    /// Sent where a plain process gets SIGTERM.
    pub stop_signal: i32,
    pub secrets: Option<SecretFiles>,
    /// Run by OCI runtimes only.
    pub hooks: Vec<Hook>,
    pub recording: Recording,
    pub runtime: Runtime,
}

/// A program of the host that has to be run for a device of the container to work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub stage: HookStage,
    pub path: PathBuf,
    /// The program's own name comes first.
    pub args: Vec<String>,
    pub env: Vec<String>,
}

/// When a hook is run, in the words of the OCI's runtime specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HookStage {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl HookStage {
    pub fn parse(name: &str) -> Option<Self> {
        let deserializer = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name);
        Self::deserialize(deserializer).ok()
    }
}

/// Files in memory that the program's user alone can read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretFiles {
    pub dir: PathBuf,
    /// What is in each, by name.
    pub files: BTreeMap<String, String>,
}

/// Their names may be told, nothing else.
impl fmt::Debug for SecretFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.files.keys().collect();
        f.debug_struct("SecretFiles").field("dir", &self.dir).field("files", &names).finish()
    }
}

/// Who makes the program's surroundings out of what the shim has prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Runtime {
    /// The shim itself.
    Native,
    /// An OCI runtime, by the full path of its program.
    Oci(PathBuf),
}

/// Whether the files that the program opens are told ([`Notice::Touched`](crate::Notice)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recording {
    Off,
    UntilReady,
}

/// Where a container's files come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Directories that are never written to, the uppermost first.
    pub lower: Vec<PathBuf>,
    /// Directories that are seen only where a file of `lower` points into them.
    pub data: Vec<PathBuf>,
    /// What the program may write into its files, kept in memory and gone with the runner.
    pub writable_bytes: u64,
    pub writes: Writes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Writes {
    /// Into memory, up to [`Root::writable_bytes`].
    Kept,
    Refused,
}

/// A file or directory of the host at a place in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    pub source: PathBuf,
    pub target: PathBuf,
    pub writes: Writes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scratch {
    pub target: PathBuf,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerUser {
    Ids {
        uid: u32,
        gid: u32,
        groups: Vec<u32>,
    },
    /// `USER[:GROUP]`, names or numbers, looked up in the container's own files.
    Named(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// A network of its own with nothing but loopback. The node connects inside it.
    None,
    /// The host's, unrestricted.
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SystemCalls {
    /// Without those that programs in containers have no use for and break-outs have.
    Filtered,
    All,
}

impl ContainerSpec {
    /// The port that programs are given in a network of their own.
    pub const PORT: u16 = 8_080;

    /// A container with these files and the safest choice in everything else.
    pub fn new(lower: Vec<PathBuf>) -> Self {
        let root = Root {
            lower,
            data: Vec::new(),
            writable_bytes: WRITABLE_BYTES_DEFAULT,
            writes: Writes::Kept,
        };
        Self {
            root,
            binds: Vec::new(),
            scratch: Vec::new(),
            hostname: "runner".to_owned(),
            user: ContainerUser::Ids { uid: 0, gid: 0, groups: Vec::new() },
            network: Network::None,
            port: Self::PORT,
            devices: Vec::new(),
            shared_memory_bytes: SHARED_MEMORY_BYTES_DEFAULT,
            system_calls: SystemCalls::Filtered,
            capabilities: Capabilities::default(),
            stop_signal: libc::SIGTERM,
            secrets: None,
            hooks: Vec::new(),
            recording: Recording::Off,
            runtime: Runtime::Native,
        }
    }
}
