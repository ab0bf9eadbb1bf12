//! A client that breaks no rule, whatever it does.

use super::client::*;
use crate::sim::twilio::*;

/// Calls out over each transport, is held and taken back, holds, hangs up; is called, answers, is left;
/// asks for OPTIONS as often as it may.
#[test]
fn a_right_client_breaks_no_rule() {
    for transport in Transport::ALL {
        let mut world = world(|_| {});
        script(&mut world, "pbx", right);
        let flow = way(transport);
        let routes = routes(flow);
        let tag = up(&mut world, "+15005550004", flow);
        let target = target("+15005550004");
        pass(&mut world, 5000);
        say_over(&mut world, flow, inside("INVITE", &target, &routes, 2, &tag));
        assert_eq!(status(&mut world), 200);
        say_over(&mut world, flow, inside("ACK", &target, &routes, 2, &tag));
        say_over(&mut world, flow, Bytes::from_static(b"\r\n\r\n"));
        say_over(&mut world, flow, inside("BYE", &target, &routes, 3, &tag));
        assert_eq!(status(&mut world), 200);

        let to = vec![Origination::new(addr(CLIENT), transport)];
        let talks_for = Some(Duration::from_secs(5));
        let call = CallIn { talks_for, ..CallIn::new(OWN, "+14155550123", to) };
        with_trunk(&mut world, |twilio, now| twilio.call_in(&call, now));
        pass(&mut world, 10_000);
        assert_eq!(with_trunk(&mut world, |twilio, _| twilio.calls()), 0);
        assert_eq!(rules(&mut world), [], "{transport:?}\n{}", world.ladder());
    }
}

/// Takes calls; changes nothing when the far end holds.
fn right(message: &Message, flow: Flow) -> Vec<Bytes> {
    let is_change = message.method() == Method::Invite && message.to_tag().is_some();
    match (message.is_request(), is_change) {
        (true, true) => vec![answer(message, flow, 200)],
        (_, _) => takes_calls(message, flow),
    }
}
