//! Which addresses an upstream may have: public ones, unless the configuration itself
//! names another. A document that an issuer publishes can never lead inside.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use url::{Host, Url};

/// How far a request to an upstream may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Public addresses, over https.
    Public,
    /// Any address: it is configured as such.
    Private,
}

/// How far a URL of the configuration itself reaches: one that names this machine or a
/// private address is meant so.
pub fn configured(url: &Url, allow_private_network: bool) -> Reach {
    if names_inside(url) || allow_private_network {
        Reach::Private
    } else {
        Reach::Public
    }
}

/// How far a URL from an issuer's document reaches: as far as the issuer itself on the
/// issuer's own origin, and to public addresses elsewhere.
pub fn discovered(url: &Url, issuer: &Url, allow_private_network: bool) -> Reach {
    if allow_private_network || url.origin() == issuer.origin() {
        configured(issuer, allow_private_network)
    } else {
        Reach::Public
    }
}

/// Whether the address is this machine's or a private network's: others may share it.
pub fn is_internal(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            // RFC 6598: clusters number their nodes so too.
            let shared = a == 100 && (64..128).contains(&b);
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || a == 0 || shared
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
        }
    }
}

/// Whether the address is one of the public internet (IANA special-purpose registries).
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(a == 0
        || a == 10
        || a == 127
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113))
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match ip.segments() {
        // IPv4-mapped and NAT64 lead to the IPv4 address at their end, 6to4 to the one inside.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            embedded(high, low)
        }
        [0x2002, high, low, ..] => embedded(high, low),
        // Documentation, Teredo and the other protocol assignments.
        [0x2001, 0x0db8, ..] => false,
        [0x2001, second, ..] if second < 0x0200 => false,
        // Of the rest, global unicast alone.
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

/// Whether a URL may be asked for: one of the web, without a user or a password, and with
/// public reach over https and of no host that is spelt as an address inside.
pub fn allowed(url: &Url, reach: Reach) -> bool {
    let near = match reach {
        Reach::Private => matches!(url.scheme(), "http" | "https"),
        Reach::Public => url.scheme() == "https" && !names_inside(url),
    };
    near && url.has_host() && url.username().is_empty() && url.password().is_none()
}

/// Whether the host is spelt as this machine or as an address that is not public.
fn names_inside(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => !is_public(IpAddr::V4(ip)),
        Some(Host::Ipv6(ip)) => !is_public(IpAddr::V6(ip)),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// Resolves names to public addresses only: the address that is checked is the one that is
/// connected to, so a second look-up cannot change it.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublicOnly;

/// A name resolves to no public address.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} has no public address; for an issuer inside the network set allow_private_network = true"
)]
struct NotPublic(String);

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(NotPublic(host).into());
            }
            let addresses: Addrs = Box::new(public.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_not_public() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2002:a00:1::",
            "2001:db8::1",
            "2001::1",
            "fec0::1",
            "::127.0.0.1",
            "100::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_document_reaches_no_further_than_its_issuer() {
        let url = |text: &str| Url::parse(text).unwrap();
        let local = url("http://127.0.0.1:9000");
        let public = url("https://idp.example.com");
        assert_eq!(
            discovered(&url("http://127.0.0.1:9000/keys"), &local, false),
            Reach::Private
        );
        assert_eq!(
            discovered(&url("http://127.0.0.1:9001/keys"), &local, false),
            Reach::Public
        );
        assert_eq!(
            discovered(&url("http://169.254.169.254/keys"), &local, false),
            Reach::Public
        );
        assert_eq!(
            discovered(&url("https://10.0.0.1/keys"), &public, false),
            Reach::Public
        );
        assert_eq!(
            discovered(&url("https://10.0.0.1/keys"), &public, true),
            Reach::Private
        );
        for spelling in [
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::ffff:7f00:1]/",
            "https://127.1/",
        ] {
            assert!(!allowed(&url(spelling), Reach::Public), "{spelling}");
        }
    }

    #[test]
    fn only_web_addresses_without_credentials_may_be_asked_for() {
        let url = |text: &str| Url::parse(text).unwrap();
        for spelling in [
            "file:///etc/passwd",
            "ftp://idp.example.com/keys",
            "gopher://127.0.0.1:70/1",
            "data:application/json,{}",
            "https://user@idp.example.com/keys",
            "https://user:password@idp.example.com/keys",
            "https://:password@idp.example.com/keys",
        ] {
            assert!(!allowed(&url(spelling), Reach::Private), "{spelling}");
            assert!(!allowed(&url(spelling), Reach::Public), "{spelling}");
        }
        for spelling in [
            "http://idp.example.com/keys",
            "https://localhost/keys",
            "https://LOCALHOST/keys",
            "https://idp.localhost/keys",
        ] {
            assert!(allowed(&url(spelling), Reach::Private), "{spelling}");
            assert!(!allowed(&url(spelling), Reach::Public), "{spelling}");
        }
        assert!(allowed(&url("https://idp.example.com/keys"), Reach::Public));
        assert!(allowed(&url("https://1.1.1.1/keys"), Reach::Public));
    }
}
