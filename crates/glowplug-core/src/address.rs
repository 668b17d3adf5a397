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
        /// A file that names the runner's namespaces, for as long as it lives.
        namespaces: PathBuf,
        port: u16,
    },
    /// A unix socket among files that no other program sees.
    UnixInNamespace {
        /// As above.
        namespaces: PathBuf,
        path: PathBuf,
    },
}

impl fmt::Display for RunnerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::InNamespace { namespaces, port } => {
                write!(f, "http://localhost:{port} inside {}", namespaces.display())
            }
            Self::UnixInNamespace { namespaces, path } => {
                write!(f, "unix:{} inside {}", path.display(), namespaces.display())
            }
        }
    }
}
