//! Prompts, echoes and digits.

use super::rig::{A, B, FRAME_MS, Peer, Rig, Sent, assert_continuous, prompt, stream};
use crate::media::{
    Discard,
    codec::{decode, encode},
    command::{Command, Event, Law, Prompt, Remote, Stream, TelephoneEvents, Voice},
    rtp,
};
use std::time::Duration;

#[test]
fn a_prompt_goes_out_at_the_agreed_pace() {
    for (law, ptime_ms, ms, packets) in [
        (Law::Mu, 20, 100, 5),
        (Law::A, 20, 100, 5),
        (Law::Mu, 10, 100, 10),
        (Law::A, 30, 100, 4),
        (Law::Mu, 60, 100, 2),
        (Law::Mu, 20, 1, 1),
        (Law::Mu, 20, 0, 0),
        (Law::Mu, 0, 100, 10),
        (Law::Mu, 999, 500, 3),
    ] {
        let name = format!("{law:?}, {ptime_ms} ms, {ms} ms");
        let mut rig = Rig::new();
        let peer = rig.peer(A);
        rig.aim(&peer, peer.remote(), Stream { ptime_ms, ..stream(law, 101) });
        let prompt = prompt(ms);
        rig.play(A, &prompt, false, 42);
        let heard = rig.pass_rtp(4000);
        let frame_ms = u64::from(ptime_ms.clamp(10, 200));
        let times = heard.iter().map(|sent| sent.at_ms).collect::<Vec<_>>();
        assert_eq!(times, (0..packets).map(|n| n * frame_ms).collect::<Vec<_>>(), "{name}");
        let markers = heard.iter().map(|sent| sent.header().marker);
        assert!(markers.eq((0..packets).map(|n| n == 0)), "{name}");
        assert!(heard.iter().all(|sent| sent.payload().len() as u64 == frame_ms * 8), "{name}");

        let played = heard.iter().flat_map(|sent| sent.payload()).map(|code| decode(law, *code));
        let silence = std::iter::repeat(&0);
        let same = |(a, b): (i16, &i16)| a == decode(law, encode(law, *b));
        assert!(played.zip(prompt.samples().iter().chain(silence)).all(same), "{name}");
        assert_eq!(rig.drain(), [Event::Played { leg: A, token: 42 }], "{name}");
        assert_eq!(rig.counters().generated, packets);
        let sent = rig.close(A).sent;
        assert_eq!((sent.packets, sent.mos), (packets, None), "no report, no opinion");
    }
}

#[test]
fn its_end_is_told_when_the_last_frame_was_heard() {
    let mut rig = Rig::new();
    rig.peer(A);
    rig.play(A, &prompt(50), false, 1);
    rig.pass(59);
    assert_eq!(rig.drain(), []);
    rig.pass(1);
    assert_eq!(rig.drain(), [Event::Played { leg: A, token: 1 }]);
}

#[test]
fn a_loop_ends_when_it_is_stopped_or_another_prompt_starts() {
    let mut rig = Rig::new();
    rig.peer(A);
    rig.play(A, &prompt(50), true, 1);
    let mut heard = rig.pass_rtp(1000 - 1);
    rig.play(A, &prompt(40), true, 2);
    heard.extend(rig.pass_rtp(FRAME_MS * 10 - 1));
    assert_eq!(heard.len(), 60);
    assert_eq!(heard[5].payload()[..80], heard[2].payload()[80..], "no seam");
    rig.give(Command::Stop { leg: A });
    assert_eq!(rig.pass_rtp(1000), []);
    assert_eq!(rig.drain(), []);
}

/// It takes as long as for others, so that the dialplan goes on at the same time; nobody else is heard.
#[test]
fn a_peer_without_g711_hears_nothing_while_a_prompt_lasts() {
    let (mut rig, mut a, b) = Rig::joined();
    rig.aim(&b, b.remote(), Stream { voice: None, clock_rate: 48_000, ..stream(Law::Mu, 96) });
    let mut heard = rig.talk(&mut a, 1);
    rig.play(B, &prompt(100), false, 3);
    assert_eq!(rig.talk(&mut a, 5), []);
    assert_eq!(rig.drain().last(), Some(&Event::Played { leg: B, token: 3 }));
    heard.extend(rig.talk(&mut a, 2));
    let sequences =
        heard.iter().map(|sent| sent.header().sequence.since(heard[0].header().sequence));
    assert_eq!(sequences.collect::<Vec<_>>(), [0, 1, 2], "no hole");
}

/// A prompt at 8 kHz beside a stream at 48 kHz.
#[test]
fn a_prompts_clock_is_its_own() {
    let mut rig = Rig::new();
    let peer = rig.peer(A);
    let voice = Some(Voice { payload_type: 0, law: Law::Mu });
    rig.aim(&peer, peer.remote(), Stream { voice, clock_rate: 48_000, ..stream(Law::Mu, 101) });
    rig.play(A, &prompt(100), false, 1);
    assert_continuous(&rig.pass_rtp(100));
}

#[test]
fn a_prompt_takes_the_place_of_the_other_leg() {
    let (mut rig, mut a, mut b) = Rig::joined();
    rig.play(B, &prompt(100), false, 1);
    let heard = rig.talk(&mut a, 5);
    assert_eq!(heard.len(), 5);
    assert!(heard.iter().all(|sent| sent.payload().len() == 160));
    assert_eq!(rig.discarded(Discard::Replaced), 5);
    assert!(rig.say(&mut b).is_some(), "the other way is open");
    assert!(rig.say(&mut a).is_some(), "and afterwards both are");
}

#[test]
fn a_prompt_goes_on_during_a_hold() {
    let mut rig = Rig::new();
    let peer = rig.peer(A);
    rig.play(A, &prompt(200), false, 1);
    let mut heard = rig.pass_rtp(59);
    rig.aim(&peer, Remote { sends: false, ..peer.remote() }, stream(Law::Mu, 101));
    assert_eq!(rig.pass_rtp(60), []);
    rig.aim(&peer, peer.remote(), stream(Law::Mu, 101));
    heard.extend(rig.pass_rtp(100));
    assert_eq!(heard.len(), 7);
    assert_continuous(&heard);
    assert!(heard[3].header().marker, "its buffer may adapt");
}

#[test]
fn an_echo_is_what_was_said_as_a_source_of_ours() {
    let mut rig = Rig::new();
    let mut a = rig.peer(A);
    rig.give(Command::Echo { leg: A });
    let mut heard = vec![];
    for n in 0..6 {
        if n == 3 {
            a.change_source();
        }
        let said = a.clone().next();
        let sent = rig.say(&mut a).unwrap();
        assert_eq!((sent.payload(), sent.to), (&said[12..], a.address));
        heard.push(sent);
        rig.pass(FRAME_MS);
    }
    rig.give(Command::Dtmf { leg: A, digit: '1', duration_ms: 40 });
    heard.extend(rig.talk(&mut a, 6));
    assert_continuous(&heard);
    assert_eq!(rig.counters().generated, 6 + 4 + 4, "echoes, events, echoes");
    assert_eq!(rig.discarded(Discard::Replaced), 2, "not while the key is down");

    rig.peer(B);
    rig.join(A, B);
    assert_eq!(rig.say(&mut a).map(|sent| sent.slot), Some(rig.slot(B)), "a bridge ends it");
    rig.give(Command::Echo { leg: A });
    assert_eq!(rig.say(&mut a).map(|sent| sent.slot), Some(rig.slot(A)));
    rig.give(Command::Stop { leg: A });
    assert_eq!(rig.say(&mut a).map(|sent| sent.slot), Some(rig.slot(B)), "and so does Stop");
}

/// A peer may send digits under one number and want them under another.
#[test]
fn an_echo_of_a_digit_has_the_number_the_peer_wants() {
    let mut rig = Rig::new();
    let mut a = rig.peer(A);
    let events = TelephoneEvents { receive: 101, send: 96, clock_rate: 8000 };
    rig.aim(&a, a.remote(), Stream { telephone_events: Some(events), ..stream(Law::Mu, 101) });
    rig.give(Command::Echo { leg: A });
    for (sent, echoed) in [(101, 96), (0, 0), (96, 96)] {
        a.header.payload_type = sent;
        assert_eq!(rig.say(&mut a).map(|sent| sent.header().payload_type), Some(echoed), "{sent}");
    }
}

/// A press longer than 16 bits of 8 kHz, as we make it and as the other leg hears it pass.
#[test]
fn a_long_press_reaches_the_other_side_as_one() {
    let (mut rig, ..) = Rig::joined();
    rig.drain();
    rig.give(Command::Dtmf { leg: A, digit: '*', duration_ms: 20_000 });
    let pressed = rig.pass_rtp(21_000);
    let (mut other, mut a, _) = Rig::joined();
    let mut passed = vec![];
    for packet in &pressed {
        other.pass(packet.at_ms - other.elapsed_ms());
        a.header = packet.header();
        passed.extend(other.packet(A, a.address, &packet.bytes));
    }
    assert_eq!(passed.len(), pressed.len());
    let told = other.drain().into_iter().filter(|event| matches!(event, Event::Dtmf { .. }));
    let want = Event::Dtmf { leg: A, digit: '*', duration_ms: 20_000 };
    assert_eq!(told.collect::<Vec<_>>(), [want]);
    for heard in [&pressed, &passed] {
        let segments = heard.chunk_by(|a, b| a.header().timestamp == b.header().timestamp);
        let lengths = segments.map(|segment| duration(segment.last().unwrap()));
        assert_eq!(lengths.collect::<Vec<_>>(), [u16::MAX, u16::MAX, 28_930]);
        let steps = heard.windows(2).map(|pair| {
            let [before, after] = [&pair[0], &pair[1]].map(Sent::header);
            assert_eq!(after.sequence.since(before.sequence), 1);
            after.timestamp.since(before.timestamp)
        });
        assert_eq!(steps.filter(|step| *step != 0).collect::<Vec<_>>(), [65_535; 2]);
    }
}

fn is_event(sent: &Sent) -> bool {
    sent.header().payload_type == 96
}

fn duration(sent: &Sent) -> u16 {
    u16::from_be_bytes([sent.payload()[2], sent.payload()[3]])
}

#[test]
fn digits_are_pressed_inside_a_stream() {
    let (mut rig, mut a, _) = Rig::joined();
    let mut heard = rig.talk(&mut a, 3);
    for digit in ['1', '#'] {
        rig.give(Command::Dtmf { leg: B, digit, duration_ms: 100 });
    }
    heard.extend(rig.talk(&mut a, 25));
    assert_continuous(&heard);
    let events = heard.iter().filter(|sent| is_event(sent)).cloned().collect::<Vec<_>>();
    let keys = events.chunk_by(|a, b| a.header().timestamp == b.header().timestamp);
    let keys = keys.map(<[Sent]>::to_vec).collect::<Vec<_>>();
    assert_eq!(keys.len(), 2);
    for (key, event) in keys.iter().zip([1, 11]) {
        assert!(key.iter().all(|sent| sent.payload()[0] == event));
        let durations = key.iter().map(duration).collect::<Vec<_>>();
        assert_eq!(durations, [160, 320, 480, 640, 800, 800, 800]);
        let ends = key.iter().map(|sent| sent.payload()[1] & 0x80 != 0);
        assert!(ends.eq([false, false, false, false, true, true, true]));
        let (first, last) = (key[0].at_ms, key[6].at_ms);
        assert_eq!(last - first, 120);
        let inside = |sent: &&Sent| (first + 1..last).contains(&sent.at_ms) && !is_event(sent);
        assert_eq!(heard.iter().filter(inside).count(), 0, "no voice while the key is down");
    }
    let markers = events.iter().filter(|sent| sent.header().marker).count();
    assert_eq!(markers, 2);
}

#[test]
fn digits_are_pressed_inside_a_prompt() {
    let (mut rig, ..) = Rig::joined();
    rig.play(B, &prompt(400), false, 1);
    let mut heard = rig.pass_rtp(90);
    rig.give(Command::Dtmf { leg: B, digit: '5', duration_ms: 60 });
    heard.extend(rig.pass_rtp(400));
    let first_sequence = heard[0].header().sequence;
    for (n, sent) in heard.iter().enumerate() {
        assert_eq!(sent.header().sequence.since(first_sequence), n as i16);
    }
    let (events, voice): (Vec<_>, Vec<_>) = heard.iter().partition(|sent| is_event(sent));
    assert_eq!(events.len(), 5);
    assert_eq!(voice.len(), 20 - 4, "what was silent meanwhile is not made up for");
    assert!(rig.drain().contains(&Event::Played { leg: B, token: 1 }));
}

#[test]
fn digits_nobody_takes_are_forgotten() {
    let dtmf = |digit| Command::Dtmf { leg: B, digit, duration_ms: 100 };
    let quiet = Stream { telephone_events: None, ..stream(Law::Mu, 96) };
    for name in ["not agreed", "no digit", "agreed no more", "held"] {
        let (mut rig, _, b) = Rig::joined();
        match name {
            "not agreed" => {
                rig.aim(&b, b.remote(), quiet);
                rig.give(dtmf('1'));
            }
            "no digit" => ['x', 'e', ' ', '٣'].into_iter().for_each(|digit| rig.give(dtmf(digit))),
            "agreed no more" => {
                ['1', '2'].into_iter().for_each(|digit| rig.give(dtmf(digit)));
                assert_eq!(rig.pass_rtp(30).len(), 2);
                rig.aim(&b, b.remote(), quiet);
            }
            _ => {
                ['1', '2'].into_iter().for_each(|digit| rig.give(dtmf(digit)));
                assert_eq!(rig.pass_rtp(30).len(), 2);
                rig.aim(&b, Remote { sends: false, ..b.remote() }, stream(Law::Mu, 96));
            }
        }
        // A frame later already they are wanted again.
        assert_eq!(rig.pass_rtp(FRAME_MS), [], "{name}");
        rig.aim(&b, b.remote(), stream(Law::Mu, 96));
        assert_eq!(rig.pass_rtp(1000), [], "{name}: not later either");
    }
}

#[test]
fn keys_are_heard_once_and_passed_on() {
    let (mut rig, mut a, _) = Rig::joined();
    rig.talk(&mut a, 2);
    rig.drain();
    let mut told = vec![];
    let mut passed = vec![];
    // '3' whole, '4' without its end.
    for (event, ends) in [(3, 3), (4, 0)] {
        let began = a.header.timestamp;
        for n in 1..=8_u16 {
            let is_end = n > 8 - ends;
            let [d1, d2] = (160 * n.min(8 - ends + 1)).to_be_bytes();
            let header = rtp::Header { payload_type: 101, timestamp: began, ..a.header };
            let payload = [event, if is_end { 0x8a } else { 10 }, d1, d2];
            passed.extend(rig.packet(A, a.address, &rtp::tests::packet(&header, &payload)));
            a.header.sequence = a.header.sequence.next();
            rig.pass(FRAME_MS);
            told.extend(rig.drain());
        }
        a.header.timestamp = began.plus(160 * 10);
    }
    assert_eq!(passed.len(), 16);
    assert!(passed.iter().all(|sent| is_event(sent) && sent.payload()[0] < 5));
    assert_eq!(told, [Event::Dtmf { leg: A, digit: '3', duration_ms: 120 }]);
    rig.pass(300);
    assert_eq!(rig.drain(), [Event::Dtmf { leg: A, digit: '4', duration_ms: 160 }]);
    rig.pass(1000);
    assert_eq!(rig.drain(), []);
}

/// Peers can press keys at line rate; whoever does not look must not drown.
#[test]
fn what_peers_cause_does_not_pile_up() {
    let (mut rig, mut a, _) = Rig::joined();
    a.header.payload_type = 101;
    for _ in 0..10_000 {
        let packet = rtp::tests::packet(&a.header, &[1, 0x8a, 0, 160]);
        rig.packet(A, a.address, &packet);
        a.next();
    }
    let waiting = rig.drain().len();
    assert_eq!(waiting, super::EVENTS_MAX);
    assert_eq!(rig.counters().events_dropped, 10_001 - waiting as u64, "keys and the first packet");
    assert!(rig.close(A).received.packets > 0, "what was commanded is told all the same");
}

#[test]
fn a_worker_that_was_late_does_not_burst() {
    for (late_ms, at_once) in [(100, 6), (500, 26), (2000, 1)] {
        let mut rig = Rig::new();
        rig.peer(A);
        rig.play(A, &prompt(100), true, 1);
        rig.now += Duration::from_millis(late_ms);
        let heard = rig.pass_rtp(0);
        assert_eq!(heard.len(), at_once, "{late_ms} ms");
    }
}

#[test]
fn an_empty_prompt_is_over_at_once() {
    let mut rig = Rig::new();
    rig.peer(A);
    rig.play(A, &Prompt::new([]), true, 9);
    assert_eq!(rig.pass_rtp(0), []);
    assert_eq!(rig.drain(), [Event::Played { leg: A, token: 9 }]);
}

#[test]
fn the_latest_prompt_counts() {
    let mut rig = Rig::new();
    let peer = rig.peer(A);
    rig.play(A, &prompt(40), false, 1);
    rig.play(A, &prompt(40), false, 2);
    assert_eq!(rig.pass_rtp(1000).len(), 2);
    assert_eq!(rig.drain(), [Event::Played { leg: A, token: 2 }]);
    assert_eq!(Peer::of(A).address, peer.address);
}
