//! Pieces of messages by themselves: URIs and the values of headers.

use crate::{fuzz, lines};
use tandem::{
    network::Network,
    sip::{
        HeaderName, Method, NameAddr, Uri, Via,
        digest::{Challenge, Credentials},
    },
};

#[test]
fn a_uri() {
    fuzz("uri", 20_000, &lines("uri.txt"), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Some(uri) = Uri::parse(&text) else { return };
        assert!(uri.same_as(&uri), "{text}");
        let _ = (uri.ip(), uri.transport(), uri.is_e164(), uri.user_unescaped().len());
        for (name, value) in uri.params.iter() {
            assert!(uri.params.has(name), "{text}: {name}");
            assert!(text.contains(value), "{text}: {value}");
        }
    });
}

#[test]
fn a_header_value() {
    fuzz("header", 20_000, &lines("header.txt"), |bytes| {
        if let Some(address) = NameAddr::parse(bytes) {
            let _ = (address.tag(), address.parsed_uri(), address.display_str());
        }
        if let Some(via) = Via::parse(bytes) {
            let _ =
                (via.branch(), via.received(), via.rport(), via.has_rport(), via.ttl(), via.ip());
        }
        let _ = (Method::parse(bytes).as_str(), HeaderName::parse(bytes).as_str());
        let _ = Network::parse(&String::from_utf8_lossy(bytes));
        for proxy in [false, true] {
            let Some(challenge) = Challenge::parse(bytes, proxy) else { continue };
            let again = challenge.to_string();
            assert_eq!(Challenge::parse(again.as_bytes(), proxy), Some(challenge), "{again}");
        }
        let _ = Credentials::parse(bytes);
    });
}
