//! Where a runner takes requests.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RunnerAddress {
    /// Always on loopback.
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// On loopback of a network namespace that no other program is in.
    InNamespace {
        /// A file that names the namespace, for as long as the runner lives.
        namespace: PathBuf,
        port: u16,
    },
}

impl fmt::Display for RunnerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::InNamespace { namespace, port } => {
                write!(f, "http://localhost:{port} in the network of {}", namespace.display())
            }
        }
    }
}
