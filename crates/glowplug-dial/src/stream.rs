//! One connection to a runner, of whatever kind.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use glowplug_core::RunnerAddress;
use rustix::fs::{FileType, Mode, OFlags};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::namespace;

#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub async fn connect(address: &RunnerAddress) -> io::Result<Self> {
        match address {
            RunnerAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            RunnerAddress::Unix(path) => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let found = rustix::fs::open(path, flags, Mode::empty())?;
                connect_unix(&found).await.map(Self::Unix)
            }
            RunnerAddress::UnixInNamespace { namespaces, path } => {
                let found = namespace::look_up(namespaces, path)?;
                connect_unix(&found).await.map(Self::Unix)
            }
            RunnerAddress::InNamespace { namespaces, port } => {
                let socket = namespace::socket(namespaces).await?;
                let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
                let stream = socket.connect((Ipv4Addr::LOCALHOST, *port).into()).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
        }
    }
}

/// The socket's directory is the runner's own: it could have put a link there that leads to a socket of
/// somebody else, which only the node may use. So what is there is looked at first, and then that very thing is
/// connected to.
async fn connect_unix(found: &OwnedFd) -> io::Result<UnixStream> {
    let mode = rustix::fs::fstat(found)?.st_mode;
    if FileType::from_raw_mode(mode) != FileType::Socket {
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "it is no socket"));
    }
    UnixStream::connect(format!("/proc/self/fd/{}", found.as_raw_fd())).await
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }
}
