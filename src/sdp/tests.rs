//! Whole exchanges between two legs, and our descriptions as an independent reader sees them.
use super::*;
use bytes::Bytes;
use proptest::prelude::*;

const TELEPHONE_EVENT: &str = "a=rtpmap:101 telephone-event/8000\na=fmtp:101 0-16\n";

/// The caller's offer, what the callee answers to ours, and what comes of it.
#[test]
fn two_legs_hear_each_other() {
    let phone = || Policy::phone(vec![Codec::Pcmu, Codec::Pcma]);
    let trunk = || Policy::trunk(vec![Codec::Pcmu, Codec::Pcma]);
    let opus = "a=rtpmap:96 opus/48000/2\na=fmtp:96 useinbandfec=1\n";

    // The same codec: nothing is converted.
    exchange(
        &format!("0 8 101\n{TELEPHONE_EVENT}a=ptime:30\na=maxptime:60"),
        &trunk(),
        &format!("0 101\n{TELEPHONE_EVENT}"),
        "offer  0 PCMU/8000, 8 PCMA/8000, 101 telephone-event/8000 (0-16), sendrecv 30 60
         answer 0 PCMU/8000, 101 telephone-event/8000 (0-16), sendrecv 20
         forth  0>0 101>101
         back   0>0 101>101",
    );
    // No codec in common but G.711's other half; the events' numbers differ in each direction.
    exchange(
        &format!("8 101\n{TELEPHONE_EVENT}"),
        &phone(),
        "0 96\na=rtpmap:96 telephone-event/8000",
        "offer  8 PCMA/8000, 0 PCMU/8000, 101 telephone-event/8000 (0-16), sendrecv 20
         answer 8 PCMA/8000, 101 telephone-event/8000 (0-15), sendrecv 20
         forth  8>0 AlawToUlaw 101>96
         back   0>8 UlawToAlaw 96>101 101>101",
    );
    // A carrier that takes the first it knows is offered our order, and no codec that it lacks.
    exchange(
        &format!("96 9 8 0\n{opus}"),
        &trunk(),
        "8",
        "offer  0 PCMU/8000, 8 PCMA/8000, 101 telephone-event/8000 (0-16), sendrecv 20
         answer 8 PCMA/8000, sendrecv 20
         forth  8>8
         back   8>8",
    );
    // Opus passes through, with each side's parameters, under another number on each side.
    exchange(
        &format!("96 9 0\n{opus}"),
        &phone(),
        "111 101\na=rtpmap:111 OPUS/48000/2\na=fmtp:111 stereo=1\n\
         a=rtpmap:101 telephone-event/8000",
        "offer  96 opus/48000/2 (useinbandfec=1), 9 G722/8000, 0 PCMU/8000, 8 PCMA/8000, \
                101 telephone-event/8000 (0-16), sendrecv 20
         answer 96 opus/48000/2 (stereo=1), sendrecv 20
         forth  96>111
         back   96>96 101>- 111>96",
    );
    // The callee may speak A-law, which only we offered: the caller must be able to hear that.
    exchange(
        &format!("96 0\n{opus}"),
        &phone(),
        &format!("8 96\n{opus}"),
        "offer  96 opus/48000/2 (useinbandfec=1), 0 PCMU/8000, 8 PCMA/8000, \
                101 telephone-event/8000 (0-16), sendrecv 20
         answer 0 PCMU/8000, 96 opus/48000/2 (useinbandfec=1), sendrecv 20
         forth  0>8 UlawToAlaw 96>96
         back   8>0 AlawToUlaw 96>96",
    );
}

#[test]
fn dtmf_comfort_noise_and_parameters_cross() {
    let phone = Policy::phone(vec![Codec::Pcmu, Codec::Pcma]);
    // Events of two clock rates: each crosses at its own, and the one of the codec is the leg's.
    let events = "a=rtpmap:96 opus/48000/2\na=rtpmap:97 telephone-event/48000\n\
                  a=rtpmap:98 telephone-event/8000\n";
    exchange(
        &format!("96 8 97 98\n{events}"),
        &phone,
        &format!("96 8 97 98\n{events}"),
        "offer  96 opus/48000/2, 8 PCMA/8000, 0 PCMU/8000, 97 telephone-event/48000 (0-15), \
                98 telephone-event/8000 (0-15), sendrecv 20
         answer 96 opus/48000/2, 8 PCMA/8000, 97 telephone-event/48000 (0-15), \
                98 telephone-event/8000 (0-15), sendrecv 20
         forth  8>8 96>96 97>97 98>98
         back   8>8 96>96 97>97 98>98",
    );
    // The same without the fitting events first.
    let leg = answer_alone(&describe(&format!("8 97 98\n{events}")), &phone, &mut local());
    assert_eq!(leg.unwrap().1.dtmf.map(|event| event.payload_type), Some(98));
    let (_, leg, ..) = settle(
        &describe(&format!("96 8 98 97\n{events}")),
        &phone,
        &describe(&format!("96 8 98 97\n{events}")),
    );
    assert_eq!(leg.dtmf.map(|event| event.payload_type), Some(97));
    // Events of the wrong rate alone beside Opus: careless, but seen.
    exchange(
        "96 98\na=rtpmap:96 opus/48000/2\na=rtpmap:98 telephone-event/8000\n",
        &phone,
        "96 98\na=rtpmap:96 opus/48000/2\na=rtpmap:98 telephone-event/8000\n",
        "offer  96 opus/48000/2, 98 telephone-event/8000 (0-15), sendrecv 20
         answer 96 opus/48000/2, 98 telephone-event/8000 (0-15), sendrecv 20
         forth  96>96 98>98
         back   96>96 98>98",
    );
    // Comfort noise crosses, but is no codec to speak in; an unnamed number means what we offered.
    exchange(
        "13 18 0 101\na=fmtp:18 annexb=no\na=rtpmap:101 telephone-event/8000",
        &phone,
        "13 18 101\na=fmtp:18 annexb=yes",
        "offer  13 CN/8000, 18 G729/8000 (annexb=no), 0 PCMU/8000, 8 PCMA/8000, \
                101 telephone-event/8000 (0-15), sendrecv 20
         answer 18 G729/8000 (annexb=yes), 13 CN/8000, 101 telephone-event/8000 (0-15), sendrecv 20
         forth  13>13 18>18 101>101
         back   13>13 18>18 101>101",
    );
    // 101 is taken, so our events get another number; those who know none are not answered any.
    exchange(
        "101 0\na=rtpmap:101 speex/16000",
        &phone,
        "0 96\na=rtpmap:96 telephone-event/8000\na=fmtp:96 0-11",
        "offer  101 speex/16000, 0 PCMU/8000, 8 PCMA/8000, 96 telephone-event/8000 (0-16), \
                sendrecv 20
         answer 0 PCMU/8000, sendrecv 20
         forth  0>0
         back   0>0 96>-",
    );
}

/// RFC 3264 6.1, 8.4: what the callee answers to a hold, and what the caller is told.
#[test]
fn hold_crosses_in_every_shape() {
    use Direction::{Inactive, RecvOnly, SendOnly, SendRecv};
    let hold = "a=sendonly";
    let old_hold = "c=IN IP4 0.0.0.0";
    for (offered, ours, answered, callee_leg, caller_leg) in [
        ("", SendRecv, "", SendRecv, SendRecv),
        (hold, SendOnly, "a=recvonly", SendOnly, RecvOnly),
        (hold, SendOnly, "a=inactive", Inactive, Inactive),
        // It must not answer so; it is limited all the same.
        (hold, SendOnly, "", SendOnly, RecvOnly),
        (old_hold, SendOnly, "a=recvonly", SendOnly, RecvOnly),
        ("a=inactive", Inactive, "a=inactive", Inactive, Inactive),
        ("c=IN IP4 0.0.0.0\na=inactive", Inactive, old_hold, Inactive, Inactive),
        ("a=recvonly", RecvOnly, "a=sendonly", RecvOnly, SendOnly),
        // The callee holds in its answer.
        ("", SendRecv, "a=sendonly", RecvOnly, SendOnly),
        ("", SendRecv, old_hold, RecvOnly, SendOnly),
        ("a=sendrecv", SendRecv, "a=inactive", Inactive, Inactive),
    ] {
        let offer = describe(&format!("0\n{offered}"));
        let answer = describe(&format!("0\n{answered}"));
        let (to_callee, callee, to_caller, caller) = settle(&offer, &policy(), &answer);
        let shown = format!("{offered:?} {answered:?}");
        assert_eq!(to_callee.audio().unwrap().direction, ours, "{shown}");
        assert_eq!(callee.direction, callee_leg, "{shown}");
        assert_eq!(caller.direction, caller_leg, "{shown}");
        assert_eq!(to_caller.audio().unwrap().direction, caller_leg, "{shown}");
    }
}

#[test]
fn an_exchange_can_fail_and_says_why() {
    let offer = |media: &str| describe_raw(media);
    for (media, warning, why) in [
        ("m=video 5000 RTP/AVP 31", 304, "no audio over RTP is offered"),
        ("m=audio 0 RTP/AVP 0", 304, "no audio over RTP is offered"),
        (
            "m=audio 4000 RTP/AVP 9 101\na=rtpmap:101 telephone-event/8000",
            305,
            "no codec in common; offered are G722/8000 telephone-event/8000",
        ),
        ("m=audio 4000 RTP/AVP 13", 305, "no codec in common; offered are CN/8000"),
    ] {
        let offer = offer(media);
        let trunk = Policy::trunk(vec![Codec::Pcmu]);
        let refused = offer_from(&offer, &trunk, &mut local()).unwrap_err();
        assert_eq!((refused.warning(), refused.to_string().as_str()), (warning, why), "{media}");
        assert_eq!(answer_alone(&offer, &policy(), &mut local()).unwrap_err(), refused, "{media}");
        let (_, other, ..) = settle(&describe("0"), &policy(), &describe("0"));
        let answer = answer_from(&offer, &other, &policy(), &mut local());
        assert_eq!(answer.unwrap_err(), refused, "{media}");
    }
}

#[test]
fn an_answer_can_be_unusable() {
    let offer = describe("0 8 101\na=rtpmap:101 telephone-event/8000");
    for (answer, want) in [
        ("m=audio 0 RTP/AVP 0", SdpError::Refused),
        ("m=video 4000 RTP/AVP 31", SdpError::Refused),
        ("m=audio 4000 RTP/SAVP 0", SdpError::Srtp),
        ("m=audio 4000 RTP/AVP 9", SdpError::Codecs),
        ("m=audio 4000 RTP/AVP 101", SdpError::Codecs),
    ] {
        assert_eq!(
            accept_answer(offer.audio().unwrap(), &describe_raw(answer)),
            Err(want),
            "{answer}"
        );
    }
}

#[test]
fn what_a_leg_agreed_on_is_complete() {
    let answer = describe_raw(
        "m=audio 4000 RTP/AVP 8 0 96\na=rtpmap:96 telephone-event/8000\na=rtcp:4100\na=ptime:40\n\
         a=maxptime:30",
    );
    let ours = fresh_offer(&policy(), Direction::SendRecv, &mut local());
    let agreed =
        accept_answer(Description::parse(ours).unwrap().audio().unwrap(), &answer).unwrap();
    assert_eq!(agreed.remote.to_string(), "192.0.2.9:4000");
    assert_eq!(agreed.remote_rtcp.to_string(), "192.0.2.9:4100");
    assert_eq!(agreed.format, Format::pcma());
    assert_eq!(agreed.also, [Format::pcmu()]);
    assert_eq!(agreed.dtmf.as_ref().map(|f| f.payload_type), Some(96));
    assert_eq!(agreed.incoming(101).map(|f| f.codec.clone()), Some(Codec::TelephoneEvent));
    assert_eq!(agreed.dtmf_in().map(|f| f.payload_type), Some(101), "the number of our offer");
    assert_eq!(agreed.voice(), Some(&Format::pcma()));
    assert_eq!(agreed.ptime_ms, 30, "within what it takes");
    assert!(agreed.hears_dtmf());
}

#[test]
fn the_packet_time_is_what_a_leg_takes() {
    for (lines, want) in [
        ("", 20),
        ("a=ptime:30", 30),
        ("a=ptime:40\na=maxptime:30", 30),
        ("a=maxptime:10", 10),
        ("a=maxptime:60", 20),
        ("a=ptime:0\na=maxptime:201", 20),
        ("a=ptime:x", 20),
    ] {
        let offer = describe(&format!("0\n{lines}"));
        let (answer, agreed) = answer_alone(&offer, &policy(), &mut local()).unwrap();
        assert_eq!(agreed.ptime_ms, want, "{lines}");
        let said = Description::parse(answer).unwrap().audio().unwrap().ptime_ms;
        assert_eq!(said, Some(want), "{lines}");
    }
}

/// The PBX is the far end: G.711 only, in the caller's order.
#[test]
fn a_prompt_is_answered_alone() {
    let offer = describe("9 8 0 101\na=rtpmap:101 telephone-event/8000\na=sendonly");
    let (answer, agreed) = answer_alone(&offer, &policy(), &mut local()).unwrap();
    let answer = Description::parse(answer).unwrap();
    let want = "8 PCMA/8000, 0 PCMU/8000, 101 telephone-event/8000 (0-16), recvonly 20";
    assert_eq!(show(&answer), want);
    assert_eq!((agreed.format, agreed.direction), (Format::pcma(), Direction::RecvOnly));

    let trunk = Policy::trunk(vec![Codec::Pcmu, Codec::Pcma]);
    let (_, agreed) = answer_alone(&offer, &trunk, &mut local()).unwrap();
    assert_eq!(agreed.format, Format::pcmu(), "a trunk's order is ours");
}

/// A leg that joins a call is offered what the other already speaks, and no more.
#[test]
fn a_late_leg_is_offered_what_the_call_has() {
    let answer = describe("96\na=rtpmap:96 opus/48000/2\na=sendonly");
    let (_, agreed, ..) = settle(&describe("96 0\na=rtpmap:96 opus/48000/2"), &policy(), &answer);
    let mut local = local();
    let offer = offer_matching(&agreed, &policy(), &mut local).unwrap();
    let offer = Description::parse(offer).unwrap();
    assert_eq!(show(&offer), "96 opus/48000/2, sendonly 20");
    assert_eq!(agreed.voice(), None, "it hears nothing that we can say");
    let trunk = Policy::trunk(vec![Codec::Pcmu]);
    assert!(offer_matching(&agreed, &trunk, &mut local).is_err());
}

#[test]
fn a_codec_change_is_a_new_version_and_a_new_agreement() {
    let (mut to_callee, mut to_caller) = (local(), local());
    let mut round = |offered: &str, answered: &str| {
        let offer = describe(offered);
        let ours = offer_from(&offer, &policy(), &mut to_callee).unwrap();
        let answer = describe(answered);
        let callee =
            accept_answer(Description::parse(ours).unwrap().audio().unwrap(), &answer).unwrap();
        let (_, caller) = answer_from(&offer, &callee, &policy(), &mut to_caller).unwrap();
        (to_callee.version, to_caller.version, caller.format.to_string())
    };
    assert_eq!(round("9 0", "9"), (1, 1, "G722/8000".into()));
    assert_eq!(round("9 0", "9"), (1, 1, "G722/8000".into()), "a refresh changes nothing");
    assert_eq!(round("9 0\na=sendonly", "9"), (2, 2, "G722/8000".into()));
    assert_eq!(round("0", "8"), (3, 3, "PCMU/8000".into()));
}

/// Nothing of a peer but codecs, direction and packet time reaches the other (or itself again).
#[test]
fn topology_is_hidden() {
    let offer = describe_raw(BROWSER);
    let (to_callee, _, to_caller, _) = settle(&offer, &policy(), &describe_raw(PHONE));
    for ours in [to_callee, to_caller] {
        let text = std::str::from_utf8(ours.bytes()).unwrap();
        for secret in [
            "192.0.2.9",
            "10.0.0",
            "candidate",
            "ufrag",
            "ssrc",
            "crypto",
            "mux",
            "mid",
            "group",
            "extmap",
            "x-private",
            "b=",
            "i=",
            "Alice",
            "tool",
            "rtcp-fb",
            "fingerprint",
            "red/",
        ] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        let known = ["rtpmap", "fmtp", "ptime", "maxptime", "sendrecv"];
        for (_, value) in ours.lines().filter(|(letter, _)| *letter == b'a') {
            let name = std::str::from_utf8(value).unwrap().split(':').next().unwrap();
            assert!(known.contains(&name), "a={name} in {text}");
        }
    }
}

/// Another's parser agrees with ours about what we write.
#[test]
fn our_descriptions_are_read_by_others() {
    let (to_callee, _, to_caller, _) =
        settle(&describe_raw(BROWSER), &policy(), &describe_raw(PHONE));
    for ours in [&to_callee, &to_caller] {
        agrees_with_oracle(ours);
    }
    let read = sdp_types::Session::parse(to_caller.bytes()).unwrap();
    assert_eq!(
        read.medias.iter().map(|m| (m.media.as_str(), m.port)).collect::<Vec<_>>(),
        [("audio", 10000), ("video", 0)]
    );
    let mut v6 = Local::new(1, "[2001:db8::1]:10000".parse().unwrap());
    let ours = fresh_offer(&policy(), Direction::Inactive, &mut v6);
    agrees_with_oracle(&Description::parse(ours).unwrap());
}

proptest! {
    /// Whatever comes, nothing panics, and what we make of it is a description that others can read.
    #[test]
    fn mutated_descriptions_do_no_harm(
        sample in prop::sample::select(SAMPLES),
        edits in prop::collection::vec((any::<prop::sample::Index>(), edit()), 0..12),
    ) {
        let mut bytes = format!("{SESSION}{sample}").into_bytes();
        for (at, edit) in edits {
            let at = at.index(bytes.len().max(1));
            apply(&mut bytes, at, &edit);
        }
        if let Ok(theirs) = Description::parse(Bytes::from(bytes)) {
            survives(&theirs);
        }
    }

    #[test]
    fn noise_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Description::parse(Bytes::from(bytes));
    }
}

const SESSION: &str = "v=0\no=Alice 1 1 IN IP4 192.0.2.9\ns=-\nc=IN IP4 192.0.2.9\nt=0 0\n";

/// What a browser's gateway offers over plain RTP.
const BROWSER: &str = "a=group:BUNDLE 0 1\na=tool:x-private\nb=AS:80\n\
    m=audio 4000 RTP/AVPF 111 63 9 0 126\ni=Alice's\na=mid:0\na=ice-ufrag:ufrag\n\
    a=candidate:1 1 UDP 2130706431 10.0.0.7 5000 typ host\na=fingerprint:sha-256 AA:BB\n\
    a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:secret\na=rtcp-mux\na=rtcp:4000\n\
    a=ssrc:1 cname:x\na=extmap:1 urn:x\na=rtpmap:111 opus/48000/2\na=rtcp-fb:111 nack\n\
    a=fmtp:111 minptime=10;useinbandfec=1\na=rtpmap:63 red/48000/2\na=fmtp:63 111/111\n\
    a=rtpmap:126 telephone-event/8000\na=ptime:20\na=x-private:1\n\
    m=video 4002 RTP/AVPF 96\na=rtpmap:96 VP8/90000\na=mid:1\n";

/// What a desk phone answers.
const PHONE: &str = "m=audio 5000 RTP/AVP 0 126\na=rtpmap:0 PCMU/8000\n\
    a=rtpmap:126 telephone-event/8000\na=fmtp:126 0-15\na=x-private:2\na=rtcp:5001 IN IP4 10.0.0.8\n\
    a=sendrecv\n";

const SAMPLES: &[&str] = &[
    BROWSER,
    PHONE,
    "m=audio 12692 RTP/AVP 0 8 101\na=rtpmap:101 telephone-event/8000\na=maxptime:20\na=sendrecv\n",
    "a=sendonly\nm=audio 49217 RTP/AVP 0 12\nm=video 3227 RTP/AVP 31\na=rtpmap:31 LPC\n",
    "m=audio 4000 RTP/AVP 96 97\na=rtpmap:96 AMR/8000\na=fmtp:96 octet-align=1\n\
     a=rtpmap:97 AMR/8000\nc=IN IP4 0.0.0.0\na=ptime:40\n",
];

#[derive(Clone, Debug)]
enum Edit {
    Put(u8),
    Remove(usize),
    Insert(&'static str),
    Repeat(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let pieces = &[
        "\n",
        "\r",
        "=",
        " ",
        "/",
        ":",
        "0",
        "128",
        "99999",
        "a=inactive\n",
        "m=audio 0 RTP/AVP 8\n",
        "m=audio 4 RTP/AVP 96 8\n",
        "a=rtpmap:96 PCMA/8000\n",
        "a=rtpmap:0 opus/48000/2\n",
        " 101 101",
        "c=IN IP6 ::1\n",
        "a=fmtp:0 \u{e9}\n",
        "a=rtcp:1\n",
        "t=9 x\n",
    ];
    prop_oneof![
        any::<u8>().prop_map(Edit::Put),
        (1..40_usize).prop_map(Edit::Remove),
        prop::sample::select(pieces.as_slice()).prop_map(Edit::Insert),
        (1..60_usize).prop_map(Edit::Repeat),
    ]
}

fn apply(bytes: &mut Vec<u8>, at: usize, edit: &Edit) {
    let end = |len: usize| bytes.len().min(at.saturating_add(len));
    match edit {
        Edit::Put(byte) => {
            if let Some(place) = bytes.get_mut(at) {
                *place = *byte;
            }
        }
        Edit::Remove(len) => drop(bytes.drain(at.min(bytes.len())..end(*len))),
        Edit::Insert(piece) => drop(bytes.splice(at..at, piece.bytes())),
        Edit::Repeat(len) => {
            let piece = bytes[at.min(bytes.len())..end(*len)].to_vec();
            bytes.splice(at..at, piece);
        }
    }
}

/// Uses a description in every way that a peer's can be used.
fn survives(theirs: &Description) {
    let mut leg = local();
    let (_, other, ..) = settle(&describe("0 9 18"), &policy(), &describe("0 9"));
    for answer in [
        answer_alone(theirs, &policy(), &mut leg),
        answer_from(theirs, &other, &policy(), &mut leg),
    ] {
        let Ok((bytes, agreed)) = answer else { continue };
        let ours = Description::parse(bytes).unwrap();
        agrees_with_oracle(&ours);
        assert_eq!(ours.media_count(), theirs.media_count(), "{ours:?}");
        let offered = &theirs.audio().unwrap().formats;
        for format in &ours.audio().unwrap().formats {
            let found = offered.iter().find(|f| f.payload_type == format.payload_type);
            assert!(found.is_some_and(|f| f.is_same_codec(format)), "{format} not offered");
        }
        path(&agreed, &other);
        path(&other, &agreed);
    }
    for policy in [policy(), Policy::trunk(vec![Codec::Pcma, Codec::Pcmu])] {
        let Ok(offer) = offer_from(theirs, &policy, &mut leg) else { continue };
        let ours = Description::parse(offer).unwrap();
        agrees_with_oracle(&ours);
        // An answer with all that was offered is understood in full.
        let agreed = accept_answer(ours.audio().unwrap(), &ours).unwrap();
        assert_eq!(agreed.accepts.len(), ours.audio().unwrap().formats.len());
    }
    let _ = accept_answer(describe("0 8").audio().unwrap(), theirs);
}

#[track_caller]
fn agrees_with_oracle(ours: &Description) {
    let text = std::str::from_utf8(ours.bytes()).unwrap();
    let read = sdp_types::Session::parse(ours.bytes()).expect(text);
    assert_eq!(read.origin.sess_version, ours.origin_version());
    assert_eq!(read.medias.len(), ours.media_count());
    let audio = ours.audio().expect(text);
    let connection = read.connection.expect(text);
    assert_eq!(connection.connection_address, audio.rtp.ip().to_string());
    let media = read.medias.iter().find(|m| m.media == "audio" && m.port != 0).expect(text);
    assert_eq!(media.port, audio.rtp.port());
    let numbers = audio.formats.iter().map(|f| f.payload_type.to_string()).collect::<Vec<_>>();
    assert_eq!(media.fmt, numbers.join(" "));
    for map in media.attributes.iter().filter(|a| a.attribute == "rtpmap") {
        let value = map.value.clone().expect(text);
        let known = audio.formats.iter().any(|f| format!("{} {f}", f.payload_type) == value);
        assert!(known, "{value} in {text}");
    }
}

#[track_caller]
fn exchange(offer: &str, policy: &Policy, answer: &str, want: &str) {
    let (to_callee, callee, to_caller, caller) =
        settle(&describe(offer), policy, &describe(answer));
    let got = [
        format!("offer  {}", show(&to_callee)),
        format!("answer {}", show(&to_caller)),
        format!("forth  {}", show_path(&caller, &callee)),
        format!("back   {}", show_path(&callee, &caller)),
    ];
    let want = want.lines().map(str::trim_start).collect::<Vec<_>>();
    assert_eq!(got.join("\n"), want.join("\n"));
}

/// Carries one offer and answer across: our offer, the callee's leg, our answer, the caller's leg.
#[track_caller]
fn settle(
    offer: &Description,
    policy_of_callee: &Policy,
    answer: &Description,
) -> (Description, Agreed, Description, Agreed) {
    let ours = offer_from(offer, policy_of_callee, &mut local()).unwrap();
    let ours = Description::parse(ours).unwrap();
    let callee = accept_answer(ours.audio().unwrap(), answer).unwrap();
    let (answer, caller) = answer_from(offer, &callee, &policy(), &mut local()).unwrap();
    (ours, callee, Description::parse(answer).unwrap(), caller)
}

fn show(description: &Description) -> String {
    let audio = description.audio().unwrap();
    let formats = audio.formats.iter().map(|f| match &f.fmtp {
        Some(fmtp) => format!("{} {f} ({fmtp}), ", f.payload_type),
        None => format!("{} {f}, ", f.payload_type),
    });
    let max = audio.max_ptime_ms.map_or(String::new(), |ms| format!(" {ms}"));
    let ptime = audio.ptime_ms.unwrap();
    format!("{}{} {ptime}{max}", formats.collect::<String>(), audio.direction)
}

fn show_path(from: &Agreed, to: &Agreed) -> String {
    let path = path(from, to);
    let way = |number: u8| {
        from.incoming(number)?;
        Some(match path.get(number) {
            None => format!("{number}>-"),
            Some((sent, Convert::Keep)) => format!("{number}>{sent}"),
            Some((sent, convert)) => format!("{number}>{sent} {convert:?}"),
        })
    };
    (0..128).filter_map(way).collect::<Vec<_>>().join(" ")
}

fn policy() -> Policy {
    Policy::phone(vec![Codec::Pcmu, Codec::Pcma])
}

fn local() -> Local {
    Local::new(7, "203.0.113.1:10000".parse().unwrap())
}

/// A description with one audio stream of these formats and lines.
fn describe(formats: &str) -> Description {
    describe_raw(&format!("m=audio 4000 RTP/AVP {formats}"))
}

fn describe_raw(media: &str) -> Description {
    Description::parse(Bytes::from(format!("{SESSION}{media}\n"))).unwrap()
}
