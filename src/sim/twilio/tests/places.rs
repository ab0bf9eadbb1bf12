//! Addresses and edges: where calls are taken, and where nobody answers.

use super::client::*;
use crate::sim::{Fate, twilio::*};

/// Calls at any address of any edge: each is recorded as the route.
#[test]
fn each_address_of_each_edge() {
    for edge in Edge::all() {
        for Proxy { plain, .. } in edge.proxies.clone() {
            let mut world = world(|setup| setup.edges = Edge::all());
            let uri = format!("sip:+14155550199@acme.pstn.{}.twilio.com", edge.name);
            let flow = Flow { remote: plain, ..way(Transport::Udp) };
            say_over(&mut world, flow, Said { uri, ..Said::good() }.bytes());
            let recorded = with_client(&mut world, |client| {
                let ringing = client.heard.iter().find(|message| message.status() == 183).unwrap();
                let routes = ringing.values(HeaderName::RecordRoute);
                routes.last().map(|route| String::from_utf8_lossy(&route).into_owned())
            });
            assert_eq!(recorded, Some(format!("<sip:{};r2=on;lr>", plain.ip())), "{plain}");
            assert_eq!(rules(&mut world), [], "{plain}");
        }
    }
}

#[test]
fn addresses_that_cannot_be_reached() {
    for (reach, heard, fate) in [
        (Reach::Open, 2, "arrives"),
        (Reach::Blackholed, 0, "lost"),
        (Reach::Refusing, 0, "nobody"),
        (Reach::Slow(Duration::from_secs(5)), 0, "arrives"),
    ] {
        let mut world = world(|setup| setup.edges = Edge::all());
        let address = addr("54.65.63.193:5060");
        with_trunk(&mut world, |twilio, _| twilio.set_reach(address, reach));
        let flow = Flow { remote: address, ..way(Transport::Udp) };
        say_over(&mut world, flow, Said::good().bytes());
        pass(&mut world, 1000);
        assert_eq!(with_client(&mut world, |client| client.heard.len()), heard, "{reach:?}");
        let is_it = match world.sent()[0].fate {
            Fate::Arrives { .. } => fate == "arrives",
            Fate::Lost => fate == "lost",
            Fate::NobodyThere => fate == "nobody",
        };
        assert!(is_it, "{reach:?}");
        let told = with_client(&mut world, |client| client.closed.clone());
        assert_eq!(told.len(), usize::from(reach == Reach::Refusing));
    }
}
