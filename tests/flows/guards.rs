//! Guards: where calls may go, what they show, and that nothing stops a call for help.

use crate::{
    house::{DID, House, TWILIO, act, cdr, why, with_phone, with_twilio},
    inbound::call_in,
    storm::{faults, storm},
};
use std::time::Duration;
use tandem::{
    sim::{
        Network, World,
        phone::{Act, Heard},
        twilio::CallIn,
    },
    sip::{HeaderName, Message, Method},
};

/// The INVITEs that reached the trunk.
fn invites(world: &World) -> Vec<Message> {
    let sent = world.sent().iter().filter(|sent| &*sent.to == TWILIO);
    let is_invite = |message: &Message| message.is_request() && message.method() == Method::Invite;
    let invites = sent.filter(|sent| is_invite(&sent.message));
    invites.map(|sent| sent.message.clone()).collect()
}

fn header(message: &Message, name: HeaderName) -> String {
    message.header_str(name).map(|value| value.into_owned()).unwrap_or_default()
}

/// 1001 calls a number and hangs up after five seconds, if anybody is there.
fn call(house: &mut House, network: Network, number: &str) -> World {
    let mut world = house.twilio().phone("1001").open_registered();
    world.set_network(network);
    act(&mut world, "1001", Act::Call(number.into()));
    world.at(6000, |world| act(world, "1001", Act::HangUp));
    world
}

fn refused(world: &mut World) -> Option<(u16, String)> {
    with_phone(world, "1001", |phone, _| {
        phone.heard().iter().find_map(|heard| {
            let Heard::Refused(status, reason) = heard else { return None };
            Some((*status, reason.to_string()))
        })
    })
}

/// What the trunk's, the user's and the rule's keys say, the number, and how the call is refused.
#[test]
fn calls_go_where_they_may() {
    const ABROAD: &str = "+31207654321";
    const GEORGIA: &str = "allow = { countries = [\"GE\"] }";
    const EUROPE: &str = "allow = { countries = [\"NL\", \"GB\"] }";
    const BOTH: &str = "allow = { countries = [\"NL\", \"US\"] }";
    let country = Some(
        "Country Not Allowed G010 the call may not leave by `twilio`: calls to NL are \
                        not allowed",
    );
    for (trunk, user, rule, number, want) in [
        ("", "", "", "(415) 555-0199", None),
        ("", "", "", ABROAD, country),
        ("", EUROPE, "", ABROAD, None),
        (EUROPE, "", "", ABROAD, None),
        ("", "", EUROPE, ABROAD, None),
        (BOTH, GEORGIA, "", ABROAD, country),
        (GEORGIA, EUROPE, BOTH, ABROAD, country),
        (BOTH, BOTH, EUROPE, ABROAD, None),
        (
            BOTH,
            "",
            "",
            "+19002345678",
            Some(
                "Number Type Not Allowed G011 the call may not leave by `twilio`: calls to premium \
                  numbers are not allowed",
            ),
        ),
    ] {
        let mut house = House::new(1);
        house.trunk_keys(&format!("qualify = false\n{trunk}")).user_keys("1001", user);
        house.dialplan(&format!(
            "[[internal.rule]]\nmatch = \"_+.\"\ndial = \"trunk:twilio\"\n{rule}\n"
        ));
        let mut world = call(&mut house, Network::CLEAN, number);
        assert_eq!(faults(&mut world), [""; 0]);
        let why = why(&mut world);
        let got = refused(&mut world).map(|(status, phrase)| {
            assert_eq!(status, 403);
            format!("{phrase} {why}")
        });
        assert_eq!(got.as_deref(), want, "{trunk} {user} {rule} {number}");
        assert_eq!(invites(&world).is_empty(), want.is_some());
        let trunk = cdr(&mut world).route.trunk;
        assert_eq!(trunk.as_deref(), Some("twilio"));
    }
}

#[test]
fn a_refusal_is_one_on_bad_networks_as_well() {
    let play = |seed, network| call(&mut House::new(seed), network, "+31207654321");
    storm(200, play, |world| refused(world).is_some_and(|(status, _)| status == 403));
}

/// What the trunk's and the user's keys say, whom 1001 calls, and the number that is shown.
#[test]
fn calls_show_a_number_of_the_trunks() {
    const MINE: &str = "caller_id = \"+17755550100\"";
    for (trunk, user, number, want) in [
        ("", "", "+14155550199", DID),
        ("", MINE, "+14155550199", "+17755550100"),
        ("owned = \"_+1775555XXXX\"", MINE, "+14155550199", "+17755550100"),
        // The user's number is another trunk's.
        ("verified = \"+14155550100\"", MINE, "+14155550199", DID),
        (
            "caller_ids = { NL = \"+31207650000\" }\nallow = { countries = \"any\" }",
            "",
            "+31207654321",
            "+31207650000",
        ),
        ("caller_ids = { NL = \"+31207650000\" }", "", "+14155550199", DID),
        (
            "caller_ids = { NL = \"+31207650000\" }\nallow = { countries = \"any\" }",
            MINE,
            "+31207654321",
            "+17755550100",
        ),
        // Nobody in the Netherlands would take a call from a machine's number.
        ("allow = { countries = \"any\" }", "caller_id = \"+31970123456\"", "+31207654321", DID),
    ] {
        let mut house = House::new(1);
        // Another trunk takes whatever the first does not.
        house.sections("[trunk.other]\nuri = \"sip.example.com\"\ncontext = \"inbound\"");
        house.trunk_keys(&format!("qualify = false\n{trunk}")).user_keys("1001", user);
        house.twilio_like(|mut account| {
            account.account.numbers.extend(["+17755550100", "+31207650000"].map(Into::into));
            account
        });
        let mut world = house.phone("1001").open_registered();
        act(&mut world, "1001", Act::Call(number.into()));
        world.at(6000, |world| act(world, "1001", Act::HangUp));
        assert_eq!(faults(&mut world), [""; 0], "{trunk} {user} {number}");
        for invite in invites(&world) {
            let from = header(&invite, HeaderName::From);
            assert!(from.starts_with(&format!("<sip:{want}@")), "{from} instead of {want}");
            let asserted = header(&invite, HeaderName::PAssertedIdentity);
            assert!(asserted.starts_with(&format!("<sip:{want}@")), "{asserted}");
        }
        assert_eq!(cdr(&mut world).route.caller_id.unwrap().expose(), want);
    }
}

/// A call from outside that a rule sends out again shows our number, not the caller's.
#[test]
fn a_strangers_number_never_leaves() {
    let mut house = House::new(1);
    house.twilio().dialplan(
        "[[inbound.rule]]\nmatch = \"+17756187988\"\ndial = \"trunk:twilio/+14155550199\"\n",
    );
    let mut world = house.open_registered();
    world.at(0, |world| {
        let call = CallIn { talks_for: Some(Duration::from_secs(5)), ..call_in(DID) };
        with_twilio(world, |twilio, now| twilio.call_in(&call, now));
    });
    assert_eq!(faults(&mut world), [""; 0]);
    let invites = invites(&world);
    assert_eq!(invites.len(), 2);
    for invite in invites {
        assert!(header(&invite, HeaderName::From).starts_with("<sip:+17756187988@"));
        let whole = String::from_utf8_lossy(invite.bytes()).into_owned();
        assert!(!whole.contains("4155550123") && !whole.contains("Alice"), "{whole}");
    }
    assert_eq!(cdr(&mut world).caller.number.expose(), "+14155550123");
}

/// Twilio reads the number in From; other carriers read P-Asserted-Identity.
#[test]
fn anonymous_calls_ask_for_silence() {
    let rule = "[[internal.rule]]\nmatch = \"_*67.\"\ndial = \"trunk:twilio/{number:3}\"\n\
                anonymous = true\n[[internal.rule]]\nmatch = \"_+.\"\ndial = \"trunk:twilio\"\n";
    for (trunk, user, number, want) in [
        ("", "", "+14155550199", None),
        ("", "", "*67+14155550199", Some("\"Anonymous\" <sip:+17756187988@")),
        ("", "anonymous = true", "+14155550199", Some("\"Anonymous\" <sip:+17756187988@")),
        (
            "anonymous_from = true",
            "",
            "*67+14155550199",
            Some("\"Anonymous\" <sip:anonymous@anonymous.invalid>"),
        ),
    ] {
        let mut house = House::new(1);
        house.trunk_keys(&format!("qualify = false\ncaller_name = \"Acme\"\n{trunk}"));
        let mut world = call(house.user_keys("1001", user).dialplan(rule), Network::CLEAN, number);
        faults(&mut world);
        let invites = invites(&world);
        let invite = invites.first().unwrap();
        let from = header(invite, HeaderName::From);
        let privacy = header(invite, HeaderName::Privacy);
        match want {
            Some(want) => assert!(from.starts_with(want) && privacy == "id", "{from} {privacy}"),
            None => assert!(from.starts_with("\"Acme\" <sip:+1775") && privacy.is_empty()),
        }
        let asserted = header(invite, HeaderName::PAssertedIdentity);
        assert!(asserted.starts_with("<sip:+17756187988@"), "{asserted}");
    }
}

/// The trunk for such calls cannot be reached: another one takes them.
#[test]
fn a_call_for_help_tries_every_trunk() {
    let mut house = House::new(1);
    house.sections(
        "[emergency]\ntrunk = \"lost\"\n[trunk.lost]\nuri = \"nowhere.example.com\"\n\
         caller_id = \"+12125550100\"",
    );
    let mut world = call(&mut house, Network::CLEAN, "911");
    assert_eq!(faults(&mut world), [""; 0]);
    with_phone(&mut world, "1001", |phone, _| assert!(phone.has_heard(&Heard::Up)));
    let cdr = cdr(&mut world);
    assert_eq!(cdr.route.trunk.as_deref(), Some("twilio"));
    assert_eq!(cdr.route.caller_id.unwrap().expose(), DID);
}

/// Everything is closed, but not to somebody who needs help; and no rule is needed for it.
#[test]
fn nothing_stops_a_call_for_help() {
    let play = |seed, network| {
        let mut house = House::new(seed);
        house.trunk_keys(
            "qualify = false\nmax_calls = 1\nowned = \"+17756187988\"\n\
             allow = { countries = [], deny_types = [\"fixed\", \"unknown\"] }",
        );
        house.user_keys("1001", "caller_id = \"+17756187988\"\nanonymous = true");
        house.twilio().phone("1001").phone("1002");
        // One call is all that the trunk takes, and the only one that leaves by a rule.
        house.dialplan(
            "[[internal.rule]]\nmatch = \"_+.\"\ndial = \"trunk:twilio\"\n\
             allow = { numbers = [\"+14155550199\"] }\n",
        );
        let mut world = house.open_registered();
        world.set_network(network);
        act(&mut world, "1002", Act::Call("+14155550199".into()));
        world.at(500, |world| act(world, "1001", Act::Call("911".into())));
        world.at(9000, |world| {
            act(world, "1001", Act::HangUp);
            act(world, "1002", Act::HangUp);
        });
        world
    };
    let mut world = play(1, Network::CLEAN);
    assert_eq!(faults(&mut world), [""; 0]);
    with_phone(&mut world, "1001", |phone, _| assert!(phone.has_heard(&Heard::Up)));
    let invites = invites(&world);
    let call = invites.iter().find(|invite| invite.uri().starts_with("sip:911@")).unwrap();
    assert!(header(call, HeaderName::From).starts_with("<sip:+17756187988@"));
    assert_eq!(header(call, HeaderName::Privacy), "");
    with_twilio(&mut world, |twilio, _| assert_eq!(twilio.deviations(), []));
    storm(200, play, |world| with_phone(world, "1001", |phone, _| phone.has_heard(&Heard::Up)));
}
