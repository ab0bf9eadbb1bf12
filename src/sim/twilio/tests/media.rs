//! Packets and handshakes, as whoever runs the trunk tells of them.

use super::{Wrong, client::*};
use crate::sim::twilio::*;

const GOOD: Packet = Packet {
    source: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), 4000),
    ttl: Some(57),
    payload_type: 0,
};

fn broken(packet: Packet) -> Vec<Rule> {
    let mut world = world(|_| {});
    up(&mut world, "+14155550199", way(Transport::Udp));
    with_trunk(&mut world, |twilio, _| {
        assert!(twilio.rtp_arrives(CallNumber(1), GOOD));
        for _ in 0..3 {
            assert!(!twilio.rtp_arrives(CallNumber(1), packet), "dropped");
        }
    });
    rules(&mut world)
}

pub(super) const CLIENTS: &[Wrong] = &[
    (Rule::MediaTtl, || broken(Packet { ttl: Some(10), ..GOOD })),
    (Rule::MediaSource, || broken(Packet { source: addr("203.0.113.1:4002"), ..GOOD })),
    (Rule::MediaCodec, || broken(Packet { payload_type: 8, ..GOOD })),
    (Rule::TlsVersion, || {
        let mut world = world(|_| {});
        with_trunk(&mut world, |twilio, _| {
            twilio.tls_failed(way(Transport::Tls), "peer is incompatible: TLS 1.0");
        });
        rules(&mut world)
    }),
    (Rule::SniIsName, || {
        let mut world = world(|_| {});
        with_trunk(&mut world, |twilio, _| {
            twilio.tls_arrives(way(Transport::Tls), Some(HOST));
            twilio.tls_arrives(way(Transport::Tls), Some("54.172.60.0"));
        });
        rules(&mut world)
    }),
];

#[test]
fn what_is_taken() {
    let mut world = world(|setup| setup.policy.symmetric = true);
    up(&mut world, "+14155550199", way(Transport::Udp));
    with_trunk(&mut world, |twilio, _| {
        for packet in [
            Packet { ttl: None, ..GOOD },
            Packet { ttl: Some(11), ..GOOD },
            Packet { payload_type: 101, ..GOOD },
            Packet { payload_type: 13, ..GOOD },
            Packet { source: addr("198.51.100.7:1"), ..GOOD },
        ] {
            assert!(twilio.rtp_arrives(CallNumber(1), packet), "{packet:?}");
        }
        assert!(!twilio.rtp_arrives(CallNumber(2), GOOD), "no such call");
    });
    assert_eq!(rules(&mut world), []);
}

/// The first codec of the offer is answered, and no other.
#[test]
fn the_first_supported_codec_is_taken() {
    let mut world = world(|_| {});
    let audio = "m=audio 4000 RTP/AVP 9 8 0 101\r\na=rtpmap:101 telephone-event/8000".into();
    say(&mut world, Said { audio, ..Said::good() }.bytes());
    let sdp = with_client(&mut world, |client| {
        let ringing = client.heard.iter().find(|message| message.status() == 183).unwrap();
        String::from_utf8_lossy(ringing.body()).into_owned()
    });
    assert!(sdp.contains(" RTP/AVP 8 101\r\n"), "{sdp}");
    assert!(sdp.contains("o=- 1 1 IN IP4 172.25.75.240\r\n"), "{sdp}");
    assert!(sdp.contains("c=IN IP4 168.86.128.1\r\n"), "{sdp}");
}

/// Early media and what follows the answer are two streams; a mute far end has none.
#[test]
fn streams() {
    for (number, want) in [
        ("+14155550199", vec![1, 2, 2]),
        ("+15005550200", vec![1, 1]),
        ("+15005550183", vec![1, 2, 3, 3]),
        ("+15005550014", vec![]),
    ] {
        let mut world = world(|_| {});
        up(&mut world, number, way(Transport::Udp));
        let mut streams = vec![];
        with_trunk(&mut world, |twilio, _| {
            while let Some(event) = twilio.poll_event() {
                if let Event::MediaStart { stream, .. } = event {
                    streams.push(stream);
                }
            }
        });
        assert_eq!(streams, want, "{number}");
    }
}
