//! Which addresses webhooks may be called at.
//!
//! Whoever may submit a request chooses an address that this node connects to. Unless the config says
//! otherwise it must be one that the public Internet leads to: not this machine, not its network, not
//! what a cloud tells its machines.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Addresses that begin alike, as `10.0.0.0/8` or `fd00::/8`; a single address stands for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr(IpNet);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a range of addresses; write one as `10.1.0.0/16`, `fd00::/8` or `127.0.0.1`")]
pub struct CidrError(String);

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map(|net| Self(net.trunc())).map_err(|_| CidrError(text.to_owned()))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Cidr {
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6(start: [u16; 3], bits: u8) -> Ipv6Net {
    let [a, b, c] = start;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), bits)
}

const METADATA: &str = "where a cloud describes its machines";
const DOCUMENTATION: &str = "an address for documentation";
const PRIVATE: &str = "a private address";
const RESERVED: &str = "a reserved address";

/// The first that fits gives the reason.
const REFUSED_V4: [(Ipv4Net, &str); 20] = [
    (v4(0, 0, 0, 0, 8), "an unspecified address"),
    (v4(10, 0, 0, 0, 8), PRIVATE),
    (v4(100, 100, 100, 200, 32), METADATA),
    (v4(100, 64, 0, 0, 10), "an address shared behind a carrier's NAT"),
    (v4(127, 0, 0, 0, 8), "a loopback address"),
    (v4(168, 63, 129, 16, 32), METADATA),
    (v4(169, 254, 169, 254, 32), METADATA),
    (v4(169, 254, 0, 0, 16), "a link-local address"),
    (v4(172, 16, 0, 0, 12), PRIVATE),
    (v4(192, 0, 0, 0, 24), RESERVED),
    (v4(192, 0, 2, 0, 24), DOCUMENTATION),
    (v4(192, 88, 99, 0, 24), RESERVED),
    (v4(192, 168, 0, 0, 16), PRIVATE),
    (v4(198, 18, 0, 0, 15), "an address for measurements"),
    (v4(198, 51, 100, 0, 24), DOCUMENTATION),
    (v4(203, 0, 113, 0, 24), DOCUMENTATION),
    (v4(233, 252, 0, 0, 24), DOCUMENTATION),
    (v4(224, 0, 0, 0, 4), "a multicast address"),
    (v4(255, 255, 255, 255, 32), "the broadcast address"),
    (v4(240, 0, 0, 0, 4), RESERVED),
];

const REFUSED_V6: [(Ipv6Net, &str); 10] = [
    (v6([0x64, 0xff9b, 0], 96), "an IPv4 address behind NAT64"),
    (v6([0x64, 0xff9b, 1], 48), "an IPv4 address behind NAT64"),
    (v6([0x2001, 0xdb8, 0], 32), DOCUMENTATION),
    (v6([0x3fff, 0, 0], 20), DOCUMENTATION),
    (v6([0x2001, 0, 0], 32), "an IPv4 address in a Teredo tunnel"),
    (v6([0x2002, 0, 0], 16), "an IPv4 address in a 6to4 tunnel"),
    (v6([0x2001, 0, 0], 23), RESERVED),
    (v6([0xfe80, 0, 0], 10), "a link-local address"),
    (v6([0xfc00, 0, 0], 7), PRIVATE),
    (v6([0xff00, 0, 0], 8), "a multicast address"),
];

/// What the public Internet leads to among IPv6 addresses.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0], 3);

/// Why webhooks are not called at an address that nothing allows; `None` if they are.
pub(super) fn refusal(address: IpAddr, allow: &[Cidr]) -> Option<&'static str> {
    // An IPv4 address in IPv6's clothes is reached as the IPv4 address it is.
    let plain = address.to_canonical();
    if allow.iter().any(|cidr| cidr.contains(plain) || cidr.contains(address)) {
        return None;
    }
    match plain {
        IpAddr::V4(address) => {
            REFUSED_V4.iter().find(|(net, _)| net.contains(&address)).map(|(_, why)| *why)
        }
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Some("a loopback address"),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Some("an unspecified address"),
        IpAddr::V6(address) => {
            let named = REFUSED_V6.iter().find(|(net, _)| net.contains(&address));
            let other = || (!GLOBAL_V6.contains(&address)).then_some(RESERVED);
            named.map(|(_, why)| *why).or_else(other)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_called() {
        for (address, refused) in [
            ("0.0.0.0", Some("unspecified")),
            ("0.1.2.3", Some("unspecified")),
            ("10.0.0.1", Some("private")),
            ("10.255.255.255", Some("private")),
            ("11.0.0.1", None),
            ("100.63.255.255", None),
            ("100.64.0.1", Some("carrier")),
            ("100.100.100.200", Some("cloud")),
            ("100.127.255.255", Some("carrier")),
            ("100.128.0.1", None),
            ("126.255.255.255", None),
            ("127.0.0.1", Some("loopback")),
            ("127.255.0.9", Some("loopback")),
            ("128.0.0.1", None),
            ("168.63.129.16", Some("cloud")),
            ("168.63.129.17", None),
            ("169.254.0.1", Some("link-local")),
            ("169.254.169.254", Some("cloud")),
            ("172.15.255.255", None),
            ("172.16.0.1", Some("private")),
            ("172.31.255.255", Some("private")),
            ("172.32.0.1", None),
            ("192.0.0.8", Some("reserved")),
            ("192.0.2.7", Some("documentation")),
            ("192.88.99.1", Some("reserved")),
            ("192.168.1.1", Some("private")),
            ("192.169.1.1", None),
            ("198.18.0.1", Some("measurements")),
            ("198.19.255.255", Some("measurements")),
            ("198.20.0.1", None),
            ("198.51.100.1", Some("documentation")),
            ("203.0.113.255", Some("documentation")),
            ("223.255.255.255", None),
            ("224.0.0.1", Some("multicast")),
            ("239.255.255.255", Some("multicast")),
            ("240.0.0.1", Some("reserved")),
            ("255.255.255.255", Some("broadcast")),
            ("8.8.8.8", None),
            ("::", Some("unspecified")),
            ("::1", Some("loopback")),
            ("::2", Some("reserved")),
            ("::ffff:127.0.0.1", Some("loopback")),
            ("::ffff:10.1.2.3", Some("private")),
            ("::ffff:169.254.169.254", Some("cloud")),
            ("::ffff:8.8.8.8", None),
            ("::127.0.0.1", Some("reserved")),
            ("64:ff9b::7f00:1", Some("NAT64")),
            ("64:ff9b::808:808", Some("NAT64")),
            ("64:ff9b:1::1", Some("NAT64")),
            ("100::1", Some("reserved")),
            ("2001::1", Some("Teredo")),
            ("2001:10::1", Some("reserved")),
            ("2001:db8::1", Some("documentation")),
            ("2002:7f00:1::", Some("6to4")),
            ("3fff:fff::1", Some("documentation")),
            ("4000::1", Some("reserved")),
            ("5f00::1", Some("reserved")),
            ("fc00::1", Some("private")),
            ("fd00:ec2::254", Some("private")),
            ("fe80::1", Some("link-local")),
            ("fec0::1", Some("reserved")),
            ("ff02::1", Some("multicast")),
            ("2606:4700:4700::1111", None),
            ("2a00:1450:4001::1", None),
        ] {
            let found = refusal(address.parse().unwrap(), &[]);
            assert_eq!(found.is_some(), refused.is_some(), "{address}: {found:?}");
            if let (Some(found), Some(refused)) = (found, refused) {
                assert!(found.contains(refused), "{address}: {found}");
            }
        }
    }

    #[test]
    fn the_config_allows_more() {
        let allow = |ranges: &[&str], address: &str| {
            let ranges: Vec<Cidr> = ranges.iter().map(|range| range.parse().unwrap()).collect();
            refusal(address.parse().unwrap(), &ranges).is_none()
        };
        assert!(allow(&["127.0.0.0/8"], "127.0.0.1"));
        assert!(allow(&["127.0.0.0/8"], "::ffff:127.0.0.1"));
        assert!(allow(&["::ffff:7f00:0/104"], "::ffff:127.0.0.1"));
        assert!(allow(&["10.1.0.0/16", "::1"], "::1"));
        assert!(!allow(&["127.0.0.0/8"], "::1"));
        assert!(!allow(&["10.1.0.0/16"], "10.2.0.1"));
        assert!(!allow(&["127.0.0.1"], "127.0.0.2"));
    }

    #[test]
    fn ranges_are_written_as_usual() {
        for (text, shown) in [
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("127.0.0.1", Some("127.0.0.1/32")),
            ("::1", Some("::1/128")),
            ("fd00::/8", Some("fd00::/8")),
            ("10.0.0.0/33", None),
            ("10.0.0", None),
            ("localhost", None),
            ("", None),
        ] {
            let read = text.parse::<Cidr>().ok().map(|cidr| cidr.to_string());
            assert_eq!(read.as_deref(), shown, "{text}");
        }
    }
}
