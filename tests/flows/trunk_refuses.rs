//! The trunk refuses: the caller hears a status, the CDR says why and what to do.

use crate::{
    house::{House, act, cdr, with_phone},
    storm::{assert_ladder, faults, storm},
};
use tandem::{
    observe::cdr::EndedBy,
    sim::{
        Network, World,
        phone::{Act, Heard},
        twilio::{FarEnd, NUMBERS, far_end},
    },
    sip::Method,
};

fn play(seed: u64, network: Network, number: &str, names_errors: bool) -> World {
    let mut house = House::new(seed);
    house.twilio_like(|mut setup| {
        setup.names_errors = names_errors;
        setup
    });
    let mut world = house.phone("1001").open_registered();
    world.set_network(network);
    act(&mut world, "1001", Act::Call(number.into()));
    world
}

/// Who is called, what the phone hears, and what the CDR says.
const TABLE: &[(&str, u16, &str, &str)] = &[
    ("+15005550486", 486, "T023", "+1500****486 is busy (486 Busy Here)"),
    (
        "+15005550480",
        480,
        "T024",
        "+1500****480 cannot be reached or did not pick up (480 Temporarily Unavailable)",
    ),
    (
        "+15005550603",
        603,
        "T016",
        "the carrier has suspended the account, or it is out of funds (603 Decline)",
    ),
    ("+15005551603", 603, "T025", "+1500****603 declined the call (603 Decline)"),
    ("+15005550408", 480, "R005", "+1500****408 did not answer in time"),
    ("+15005550000", 480, "T001", "asterisk-pbx1.pstn.twilio.com did not answer (no answer)"),
    (
        "+15005550400",
        400,
        "T003",
        "the carrier's account is on trial and +1500****400 is not verified in it (400 Unverified number)",
    ),
    (
        "+15005551400",
        400,
        "T002",
        "the carrier does not take +1500****400 for a telephone number (400 Invalid phone number)",
    ),
    (
        "+15005550403",
        403,
        "T004",
        "the carrier does not accept calls from 10.0.0.1 (403 Forbidden)",
    ),
    ("+15005551403", 403, "T005", "the carrier rejected our user name or password (403 Forbidden)"),
    (
        "+15005552403",
        403,
        "T006",
        "the carrier does not let us call from +1775****988 (403 Caller ID not owned or verified)",
    ),
    (
        "+15005553403",
        403,
        "T007",
        "the carrier does not let this account call the country of +1500****403 (403 International calling not enabled)",
    ),
    (
        "+15005554403",
        403,
        "T008",
        "the carrier blocks calls to +1500****403 or from this address (403 Blocked)",
    ),
    (
        "+15005555403",
        403,
        "T008",
        "the carrier blocks calls to +1500****403 or from this address (403 Blocked)",
    ),
    (
        "+15005556403",
        403,
        "T006",
        "the carrier does not let us call from +1775****988 (403 Invalid caller ID)",
    ),
    ("+15005550404", 404, "T022", "+1500****404 does not exist (404 Not Found)"),
    (
        "+15005550415",
        415,
        "T010",
        "the carrier knows none of the codecs offered (415 Unsupported Media Type)",
    ),
    (
        "+15005550422",
        500,
        "T012",
        "the carrier refuses session timers (422 Session Interval Too Small)",
    ),
    (
        "+15005550483",
        483,
        "T013",
        "the carrier found Max-Forwards 70 too small (483 Too Many Hops)",
    ),
    (
        "+15005550488",
        488,
        "T011",
        "the carrier wants encrypted media on this trunk (488 Not Acceptable Here)",
    ),
    (
        "+15005551488",
        488,
        "T011",
        "the carrier wants encrypted media on this trunk (488 Not Acceptable Here)",
    ),
    (
        "+15005552488",
        488,
        "T011",
        "the carrier wants encrypted media on this trunk (488 Not Acceptable Here)",
    ),
    (
        "+15005550500",
        500,
        "T026",
        "the carrier has a problem of its own: 500 Server Internal Error (500 Server Internal Error)",
    ),
    (
        "+15005550503",
        503,
        "T014",
        "more calls were started at once than the carrier allows a second (503 Trunk CPS limit exceeded)",
    ),
    (
        "+15005551503",
        503,
        "T015",
        "more calls are up than the carrier allows at the same time (503 Trunk concurrent call limit exceeded)",
    ),
    (
        "+15005552503",
        503,
        "T014",
        "more calls were started at once than the carrier allows a second (503 Trunk CPS limit exceeded)",
    ),
];

#[test]
fn each_refusal_is_explained() {
    for (number, status, code, sentence) in TABLE {
        for names_errors in [true, false] {
            let mut world = play(1, Network::CLEAN, number, names_errors);
            assert_eq!(faults(&mut world), [""; 0], "{number}");
            let heard = with_phone(&mut world, "1001", |phone, _| phone.heard().last().cloned());
            let is_status = matches!(&heard, Some(Heard::Refused(got, _)) if got == status);
            assert!(is_status, "{number}: {heard:?}");
            let why = cdr(&mut world).ending.why.unwrap();
            let error = error_of(number).filter(|_| names_errors);
            let evidence = error.map_or(")".to_owned(), |error| format!(", error {error})"));
            let want = format!("{}{evidence}", sentence.strip_suffix(')').unwrap_or(sentence));
            let want = if sentence.ends_with(')') { want } else { (*sentence).to_owned() };
            // Nothing but the carrier's number tells that it is we who encrypt.
            let want = match error {
                Some(32207) => want.replace("encrypted", "plain"),
                Some(_) | None => want,
            };
            assert_eq!((&*why.code, why.sentence), (*code, want), "{number}");
        }
    }
    let refusing = NUMBERS.iter().filter(|(_, far_end)| refuses(far_end));
    assert_eq!(refusing.count(), TABLE.len());
}

fn refuses(far_end: &FarEnd) -> bool {
    match far_end {
        FarEnd::Refuses { .. } | FarEnd::Silent | FarEnd::RingsForever => true,
        FarEnd::Answers { .. } => false,
    }
}

fn error_of(number: &str) -> Option<u32> {
    if let FarEnd::Refuses { error, .. } = far_end(number) { error } else { None }
}

/// A far end that sees no ACK drops the call after 30 s.
#[test]
fn a_call_that_is_dropped_for_want_of_an_ack() {
    let mut world = play(1, Network::CLEAN, "+15005550030", true);
    assert_eq!(faults(&mut world), [""; 0]);
    let byes = world.sent().iter().filter(|sent| sent.message.method() == Method::Bye);
    let first = byes.map(|sent| (&*sent.from, sent.at_ms)).next();
    assert_eq!(first, Some(("twilio", 32_380)));
    let ending = cdr(&mut world).ending;
    assert_eq!(ending.by, EndedBy::Callee);
    let why = ending.why.unwrap();
    assert_eq!((&*why.code, &*why.carrier_errors), ("T017", &[32022][..]), "{}", why.sentence);
}

/// The help is the operator's next step.
#[test]
fn the_cdr_says_what_to_do() {
    for (number, want) in [
        ("+15005550403", "add 10.0.0.1 to the trunk's IP access control list"),
        (
            "+15005553403",
            "enable the country under Voice Geographic Permissions in the carrier's console",
        ),
    ] {
        let mut world = play(1, Network::CLEAN, number, true);
        assert_eq!(faults(&mut world), [""; 0], "{number}");
        assert_eq!(cdr(&mut world).ending.why.unwrap().help.as_deref(), Some(want));
    }
}

#[test]
fn busy() {
    let mut world = play(1, Network::CLEAN, "+15005550486", true);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls twilio
               380 ms  twilio -> tandem  183 Session Progress (INVITE, sdp)
               400 ms  tandem -> 1001  183 Session Progress (INVITE, sdp)
              2380 ms  twilio -> tandem  486 Busy Here (INVITE)
              2400 ms  tandem -> twilio  ACK
              2400 ms  tandem -> 1001  486 Busy Here (INVITE)
              2420 ms  1001 -> tandem  ACK",
    );
}

#[test]
fn silence() {
    let mut world = play(1, Network::CLEAN, "+15005550000", true);
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> twilio  INVITE (sdp)
               520 ms  tandem -> twilio  INVITE (sdp)
              1520 ms  tandem -> twilio  INVITE (sdp)
              3520 ms  tandem -> twilio  INVITE (sdp)
              7520 ms  tandem -> twilio  INVITE (sdp)
             15520 ms  tandem -> twilio  INVITE (sdp)
             31520 ms  tandem -> twilio  INVITE (sdp)
             32020 ms  tandem -> 1001  480 Temporarily Unavailable (INVITE)
             32040 ms  1001 -> tandem  ACK",
    );
}

#[test]
fn on_bad_networks() {
    let number = |seed: u64| TABLE[seed as usize % TABLE.len()].0;
    storm(200, |seed, network| play(seed, network, number(seed), true), |_| true);
}
