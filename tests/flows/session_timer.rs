//! Session timers (RFC 4028): who refreshes, and what becomes of a call that nobody refreshes.

use crate::{
    house::{House, act, cdr, why, with_phone},
    storm::{assert_ladder, faults, storm},
};
use tandem::{
    observe::cdr::EndedBy,
    sim::{
        Network, Sent, World,
        phone::{Act, Habit, Heard, On},
    },
    sip::Method,
};

fn play(seed: u64, network: Network, habits: &[Habit], session_s: Option<u32>) -> World {
    let mut house = House::new(seed);
    house.sip_keys("session_expires = \"90s\"").phone_like("1001", "1001", |mut setup| {
        setup.habits.extend(habits.iter().cloned());
        setup.session_s = session_s;
        setup
    });
    house.phone_like("1002", "1002", |mut setup| {
        setup.habits.extend(habits.iter().cloned());
        setup
    });
    let mut world = house.open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Answer);
    });
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 120_000, Act::HangUp);
    });
    world.set_network(network);
    act(&mut world, "1001", Act::Call("1002".into()));
    world
}

/// The caller refreshes its leg, the PBX the callee's; by UPDATE.
#[test]
fn both_legs_are_refreshed() {
    let play = |seed, network| play(seed, network, &[], Some(90));
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
             45160 ms  tandem -> 1002  UPDATE
             45180 ms  1002 -> tandem  200 OK (UPDATE)
             45180 ms  1001 -> tandem  UPDATE
             45200 ms  tandem -> 1001  200 OK (UPDATE)
             90200 ms  tandem -> 1002  UPDATE
             90220 ms  1002 -> tandem  200 OK (UPDATE)
             90220 ms  1001 -> tandem  UPDATE
             90240 ms  tandem -> 1001  200 OK (UPDATE)
            120180 ms  1001 hangs up on 1002",
    );
    storm(200, play, |world| {
        with_phone(world, "1001", |phone, _| phone.has_heard(&Heard::Refreshed))
    });
}

/// By re-INVITE, where the phones know no UPDATE.
#[test]
fn by_reinvite() {
    let play = |seed, network| play(seed, network, &[Habit::LacksUpdate], Some(90));
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
             45160 ms  tandem -> 1002  INVITE (sdp)
             45180 ms  1002 -> tandem  100 Trying (INVITE)
             45180 ms  1002 -> tandem  200 OK (INVITE, sdp)
             45180 ms  1001 -> tandem  INVITE (sdp)
             45200 ms  tandem -> 1002  ACK
             45200 ms  tandem -> 1001  100 Trying (INVITE)
             45200 ms  tandem -> 1001  200 OK (INVITE, sdp)
             45220 ms  1001 -> tandem  ACK
             90200 ms  tandem -> 1002  INVITE (sdp)
             90220 ms  1002 -> tandem  100 Trying (INVITE)
             90220 ms  1002 -> tandem  200 OK (INVITE, sdp)
             90220 ms  1001 -> tandem  INVITE (sdp)
             90240 ms  tandem -> 1002  ACK
             90240 ms  tandem -> 1001  100 Trying (INVITE)
             90240 ms  tandem -> 1001  200 OK (INVITE, sdp)
             90260 ms  1001 -> tandem  ACK
            120180 ms  1001 hangs up on 1002",
    );
    storm(200, play, |_| true);
}

/// The caller promised to refresh and does not: the call ends before its time.
#[test]
fn a_caller_that_forgets() {
    let play = |seed, network| play(seed, network, &[Habit::Forgets], Some(90));
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
             45160 ms  tandem -> 1002  UPDATE
             45180 ms  1002 -> tandem  200 OK (UPDATE)
             60160 ms  tandem -> 1001  BYE
             60160 ms  tandem -> 1002  BYE
             60180 ms  1001 -> tandem  200 OK (BYE)
             60180 ms  1002 -> tandem  200 OK (BYE)",
    );
    assert_eq!(cdr(&mut world).ending.by, EndedBy::Tandem);
    assert_eq!(why(&mut world), "S002 nobody refreshed the session");
    storm(200, play, |_| true);
}

/// RFC 4028 5: an interval below our minimum is refused, and asked for again.
#[test]
fn too_short_an_interval() {
    let mut world = play(1, Network::CLEAN, &[], Some(30));
    world.at(5000, |world| act(world, "1001", Act::HangUp));
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1001  422 Session Interval Too Small (INVITE)
                40 ms  1001 -> tandem  ACK
                40 ms  1001 calls 1002
               180 ms  1001 is answered by 1002
              5000 ms  1001 hangs up on 1002",
    );
}

/// The callee refuses the PBX's first refresh, 45 s into a session that ends at 60 s: it is repeated
/// in time, unless that is the end of the call or would not help.
#[test]
fn a_refresh_is_refused() {
    let refuses = |status, retry_after_s| Habit::RefusesChange { status, retry_after_s };
    for (habits, refreshed_ms, up_to_ms) in [
        (vec![refuses(491, None)], Some(47_260..=49_180), 120_180),
        (vec![refuses(491, None), Habit::LacksUpdate], Some(47_260..=49_180), 120_180),
        (vec![refuses(500, None)], Some(50_200..=50_200), 120_180),
        (vec![refuses(503, Some(8)), Habit::LacksUpdate], Some(53_200..=53_200), 120_180),
        (vec![refuses(503, Some(600))], Some(52_670..=52_690), 120_180),
        // It knows no UPDATE after all.
        (vec![refuses(405, None)], Some(45_180..=45_200), 120_180),
        // It knows the call no more.
        (vec![refuses(481, None)], None, 45_200),
        (vec![refuses(408, None), Habit::LacksUpdate], None, 45_200),
        // It does not want to.
        (vec![refuses(403, None)], None, 60_160),
    ] {
        let mut house = House::new(1);
        house.sip_keys("session_expires = \"90s\"").phone("1001");
        house.phone_like("1002", "1002", |setup| {
            habits.iter().fold(setup, |setup, habit| setup.with(habit.clone()))
        });
        let mut world = house.open_registered();
        with_phone(&mut world, "1002", |phone, _| {
            phone.when(On::Called, 100, Act::Answer);
        });
        with_phone(&mut world, "1001", |phone, _| {
            phone.when(On::Up, 120_000, Act::HangUp);
        });
        act(&mut world, "1001", Act::Call("1002".into()));
        assert_eq!(faults(&mut world), [""; 0], "{habits:?}\n{}", world.ladder());
        let sent = |from: &str, is_it: &dyn Fn(&Sent) -> bool| {
            let mut of = world.sent().iter().filter(|sent| &*sent.from == from && is_it(sent));
            of.next().map(|sent| sent.at_ms)
        };
        let refresh = |sent: &Sent| {
            (45_170..60_000).contains(&sent.at_ms)
                && matches!(sent.message.method(), Method::Invite | Method::Update)
                && sent.message.is_request()
        };
        let again = sent("tandem", &refresh);
        match refreshed_ms {
            Some(range) => assert!(range.contains(&again.unwrap()), "{habits:?}: {again:?}"),
            None => assert_eq!(again, None, "{habits:?}"),
        }
        let byes: Vec<_> = ["1001", "1002"]
            .map(|name| {
                let is_bye =
                    |sent: &Sent| sent.message.method() == Method::Bye && &*sent.to == name;
                sent("tandem", &is_bye)
            })
            .into();
        let ended =
            sent("1001", &|sent| sent.message.method() == Method::Bye && sent.message.is_request());
        if up_to_ms == 120_180 {
            assert_eq!(ended, Some(up_to_ms), "{habits:?}\n{}", world.ladder());
        } else {
            assert_eq!(byes, [Some(up_to_ms); 2], "{habits:?}\n{}", world.ladder());
        }
    }
}

/// The callee is gone when the PBX refreshes: 32 s of silence end both legs.
#[test]
fn a_refresh_meets_silence() {
    let mut house = House::new(1);
    house.sip_keys("session_expires = \"300s\"").phone("1001").phone("1002");
    let mut world = house.open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Answer);
    });
    act(&mut world, "1001", Act::Call("1002".into()));
    world.partition("tandem", "1002", 150_000, 600_000);
    world.at(700_000, |world| act(world, "1002", Act::HangUp));
    assert_eq!(faults(&mut world), [""; 0], "{}", world.ladder());
    assert_eq!(why(&mut world), "S003 the other side no longer knows the call");
    let bye = world.sent().iter().find(|sent| {
        sent.message.method() == Method::Bye && &*sent.to == "1001" && &*sent.from == "tandem"
    });
    assert_eq!(bye.map(|sent| sent.at_ms), Some(150_160 + 32_000));
}
