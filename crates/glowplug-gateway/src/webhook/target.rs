//! The address of a webhook, as its caller wrote it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use super::address::{Cidr, refusal};
use super::limits;

/// Where a webhook is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub(super) secure: bool,
    pub(super) host: Host<String>,
    pub(super) port: u16,
    /// `host` or `host:port`, as in a `Host` header.
    pub(super) authority: String,
    /// With a leading slash, query included.
    pub(super) path: String,
}

/// Why a URL is never called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("the webhook's URL has {bytes} bytes, and at most {} are taken", limits::URL_BYTES_MAX)]
    TooLong { bytes: usize },
    #[error("the webhook's URL cannot be read ({problem}); write it as `https://HOST/PATH`")]
    Unreadable { problem: String },
    #[error("webhooks are called over http and https, not over `{scheme}`")]
    Scheme { scheme: String },
    #[error(
        "the webhook's URL holds a user name or a password, which is not sent; leave it out and verify the \
         signature instead"
    )]
    UserInfo,
    #[error("a webhook cannot be called at port 0")]
    Port,
    #[error(
        "webhooks are not called at {address}, which is {why}; who runs this node can allow it with `allow` \
         below [node.webhooks]"
    )]
    Address { address: String, why: &'static str },
}

impl Target {
    /// Reads a URL. Refuses what is never called, and what plainly names an address that is not; a name
    /// that leads to one is refused when it is resolved.
    pub fn parse(url: &str, allow: &[Cidr]) -> Result<Self, TargetError> {
        if url.len() > limits::URL_BYTES_MAX {
            return Err(TargetError::TooLong { bytes: url.len() });
        }
        let unreadable = |problem: &str| TargetError::Unreadable { problem: problem.to_owned() };
        let url = Url::parse(url).map_err(|error| unreadable(&error.to_string()))?;
        let secure = match url.scheme() {
            "https" => true,
            "http" => false,
            scheme => return Err(TargetError::Scheme { scheme: scheme.to_owned() }),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::UserInfo);
        }
        let host = url.host().ok_or_else(|| unreadable("it names no host"))?.to_owned();
        let port = url.port_or_known_default().ok_or_else(|| unreadable("it names no port"))?;
        if port == 0 {
            return Err(TargetError::Port);
        }
        let authority = url.port().map_or(host.to_string(), |port| format!("{host}:{port}"));
        let path = url.query().map_or(url.path().to_owned(), |q| format!("{}?{q}", url.path()));
        let target = Self { secure, host, port, authority, path };
        target.refuse_plain(allow)?;
        Ok(target)
    }

    /// What calls to the same host have in common.
    pub fn host(&self) -> String {
        self.host.to_string()
    }

    /// Whether this is the name that leads to this machine, or an address that is not called.
    fn refuse_plain(&self, allow: &[Cidr]) -> Result<(), TargetError> {
        let (first, second) = match &self.host {
            Host::Ipv4(address) => (IpAddr::from(*address), None),
            Host::Ipv6(address) => (IpAddr::from(*address), None),
            Host::Domain(name) => {
                let name = name.trim_end_matches('.');
                if name != "localhost" && !name.ends_with(".localhost") {
                    return Ok(());
                }
                (Ipv4Addr::LOCALHOST.into(), Some(IpAddr::from(Ipv6Addr::LOCALHOST)))
            }
        };
        let refused = |address| refusal(address, allow);
        match (refused(first), second) {
            (None, _) => Ok(()),
            (Some(_), Some(second)) if refused(second).is_none() => Ok(()),
            (Some(why), _) => Err(TargetError::Address { address: self.host(), why }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Target, TargetError> {
        Target::parse(url, &[])
    }

    #[test]
    fn urls_are_taken_apart() {
        for (url, secure, authority, port, path) in [
            ("https://example.com", true, "example.com", 443, "/"),
            ("http://Example.com:80/a?b=c#d", false, "example.com", 80, "/a?b=c"),
            ("http://example.com:8080/a%20b", false, "example.com:8080", 8080, "/a%20b"),
            ("https://[2606:4700::1]:444/?x", true, "[2606:4700::1]:444", 444, "/?x"),
            ("https://bücher.example/ü", true, "xn--bcher-kva.example", 443, "/%C3%BC"),
        ] {
            let target = parse(url).unwrap();
            assert_eq!(target.secure, secure, "{url}");
            assert_eq!(target.authority, authority, "{url}");
            assert_eq!(target.port, port, "{url}");
            assert_eq!(target.path, path, "{url}");
        }
    }

    #[test]
    fn what_is_never_called_is_refused_before_anything_is_sent() {
        for (url, expected) in [
            ("", "cannot be read"),
            ("nowhere", "cannot be read"),
            ("http://", "cannot be read"),
            ("http://a b/", "cannot be read"),
            ("http://h:99999/", "cannot be read"),
            ("http://1.2.3.4.5/", "cannot be read"),
            ("ftp://example.com/", "not over `ftp`"),
            ("file:///etc/passwd", "not over `file`"),
            ("gopher://127.0.0.1:70/", "not over `gopher`"),
            ("http://user@example.com/", "user name"),
            ("http://user:word@example.com/", "user name"),
            ("http://example.com@127.0.0.1/", "user name"),
            ("http://example.com:0/", "port 0"),
            ("http://127.0.0.1/", "loopback"),
            ("http://127.1/", "loopback"),
            ("http://2130706433/", "loopback"),
            ("http://0x7f000001/", "loopback"),
            ("http://0177.0.0.1/", "loopback"),
            ("http://%31%32%37.0.0.1/", "loopback"),
            ("http://１２７.0.0.1/", "loopback"),
            ("http://127.0.0.1./", "loopback"),
            ("http://[::1]/", "loopback"),
            ("http://[::ffff:127.0.0.1]/", "loopback"),
            ("http://[0:0:0:0:0:ffff:7f00:1]/", "loopback"),
            ("http://localhost/", "loopback"),
            ("https://LOCALHOST:8443/", "loopback"),
            ("http://localhost./", "loopback"),
            ("http://a.localhost/", "loopback"),
            ("http://0/", "unspecified"),
            ("http://0.0.0.0/", "unspecified"),
            ("http://[::]/", "unspecified"),
            ("http://10.0.0.1/", "private"),
            ("http://192.168.0.1/", "private"),
            ("http://172.16.1.1/", "private"),
            ("http://169.254.169.254/latest/meta-data/", "cloud"),
            ("http://[fd00:ec2::254]/", "private"),
            ("http://[fe80::1]/", "link-local"),
            ("http://[64:ff9b::a00:1]/", "NAT64"),
        ] {
            let error = parse(url).expect_err(url).to_string();
            assert!(error.contains(expected), "{url}: {error}");
        }
        let long = format!("http://example.com/{}", "a".repeat(limits::URL_BYTES_MAX));
        assert!(matches!(parse(&long), Err(TargetError::TooLong { .. })));
    }

    #[test]
    fn what_the_config_allows_is_taken() {
        let allowed =
            |range: &str, url: &str| Target::parse(url, &[range.parse().unwrap()]).is_ok();
        assert!(allowed("127.0.0.0/8", "http://127.0.0.1:9/"));
        assert!(allowed("127.0.0.0/8", "http://localhost/"));
        assert!(allowed("::1", "http://localhost/"));
        assert!(!allowed("10.0.0.0/8", "http://localhost/"));
        assert!(!allowed("127.0.0.0/8", "http://user@127.0.0.1/"));
    }
}
