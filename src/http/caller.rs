//! Who calls: the client's address, as far as the connection and the proxies in front of the
//! service tell it.
//!
//! `X-Forwarded-For` is believed only of a peer that is a configured proxy, and is read from
//! its right end, where the nearest proxy wrote: the first address that is no such proxy is the
//! client. What stands further left may be the client's own invention. RFC 7239's `Forwarded`
//! is not read: of two headers that can differ a client would fill in the one that its proxy
//! does not, and every proxy in use writes the first.

use crate::subject::address::is_internal;
use crate::telemetry::Metrics;
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use warp::Filter;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address at the other end of the connection, among a request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The request's headers, and the client's address where it can be told from others'; counted
/// either way.
pub(super) fn headers_and_address(
    proxies: Arc<[IpNet]>,
    metrics: Arc<Metrics>,
) -> impl Filter<Extract = (HeaderMap, Option<IpAddr>), Error = Infallible> + Clone + Send + Sync + 'static
{
    warp::ext::optional::<Peer>()
        .and(warp::header::headers_cloned())
        .map(move |peer: Option<Peer>, headers: HeaderMap| {
            let address = peer.and_then(|Peer(peer)| client(peer.ip(), &headers, &proxies));
            metrics.called(address.is_some());
            (headers, address)
        })
        .untuple_one()
}

/// The client's address. An internal one that is no configured proxy may be a proxy that
/// nobody told us of, with all clients behind it: it is nobody's address.
pub fn client(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> Option<IpAddr> {
    let trusted = |ip: IpAddr| proxies.iter().any(|network| network.contains(&ip));
    let mut ip = peer.to_canonical();
    let mut hops = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .rev()
        // In bytes: what a client wrote left of the address may be no text, and must not hide it.
        .flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    while trusted(ip) {
        let text = std::str::from_utf8(hops.next()?).ok()?;
        ip = hop(text.trim_ascii())?.to_canonical();
    }
    (!is_internal(ip)).then_some(ip)
}

/// An address as proxies write it: some with a port, IPv6 then in brackets.
fn hop(text: &str) -> Option<IpAddr> {
    let bare = || text.parse::<IpAddr>().ok();
    let with_port = || Some(text.parse::<SocketAddr>().ok()?.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    bare().or_else(with_port).or_else(bracketed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_no_proxy() {
        let proxies: Vec<IpNet> = ["10.0.0.0/8", "198.51.100.7/32", "2001:db8:1::/48"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        for (peer, forwarded, expected) in [
            // No proxy: whatever the header says.
            ("203.0.113.9", vec!["1.1.1.1"], Some("203.0.113.9")),
            ("::ffff:203.0.113.9", vec!["1.1.1.1"], Some("203.0.113.9")),
            ("127.0.0.1", vec!["1.1.1.1"], None),
            ("192.168.1.1", vec!["1.1.1.1"], None),
            ("fd00::1", vec![], None),
            ("::1", vec![], None),
            // A proxy.
            ("10.0.0.1", vec!["203.0.113.9"], Some("203.0.113.9")),
            ("::ffff:10.0.0.1", vec!["203.0.113.9"], Some("203.0.113.9")),
            ("10.0.0.1", vec!["::ffff:203.0.113.9"], Some("203.0.113.9")),
            (
                "2001:db8:1::1",
                vec!["2001:db8:2::1"],
                Some("2001:db8:2::1"),
            ),
            ("10.0.0.1", vec!["203.0.113.9:4711"], Some("203.0.113.9")),
            (
                "10.0.0.1",
                vec!["[2001:db8:2::1]:4711"],
                Some("2001:db8:2::1"),
            ),
            ("10.0.0.1", vec!["[2001:db8:2::1]"], Some("2001:db8:2::1")),
            // A chain of them; what the client wrote stands left.
            (
                "10.0.0.1",
                vec!["1.1.1.1, 203.0.113.9, 198.51.100.7,10.9.9.9"],
                Some("203.0.113.9"),
            ),
            (
                "10.0.0.1",
                vec!["1.1.1.1", "203.0.113.9", "10.9.9.9, 10.9.9.8"],
                Some("203.0.113.9"),
            ),
            (
                "10.0.0.1",
                vec!["garbage, 203.0.113.9"],
                Some("203.0.113.9"),
            ),
            ("10.0.0.1", vec!["\u{e4}, 203.0.113.9"], Some("203.0.113.9")),
            // Nobody to tell from others.
            ("10.0.0.1", vec![], None),
            ("10.0.0.1", vec![""], None),
            ("10.0.0.1", vec!["203.0.113.9, "], None),
            ("10.0.0.1", vec!["203.0.113.9, unknown"], None),
            ("10.0.0.1", vec!["10.0.0.2, 10.0.0.3"], None),
            ("10.0.0.1", vec!["203.0.113.9, 192.168.0.1"], None),
            ("10.0.0.1", vec!["203.0.113.9, \u{e4}"], None),
            ("10.0.0.1", vec!["203.0.113.9, \u{a0}1.1.1.1"], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in &forwarded {
                headers.append(X_FORWARDED_FOR, value.parse().unwrap());
            }
            let found = client(peer.parse().unwrap(), &headers, &proxies);
            let expected = expected.map(|text| text.parse::<IpAddr>().unwrap());
            assert_eq!(found, expected, "{peer} {forwarded:?}");
        }
    }
}
