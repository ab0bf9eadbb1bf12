//! The exchange between two legs, and our descriptions as an independent reader sees them.
use super::*;
use bytes::Bytes;

#[test]
fn g711_is_converted_between_legs_that_share_no_codec() {
    let offer = describe("m=audio 4000 RTP/AVP 8 101\na=rtpmap:101 telephone-event/8000");
    let answer = describe("m=audio 5000 RTP/AVP 0 96\na=rtpmap:96 telephone-event/8000");
    let policy = Policy::phone(vec![Codec::Pcmu, Codec::Pcma]);
    let mut to_callee = Local::new(1, "192.0.2.1:10000".parse().unwrap());
    let mut to_caller = Local::new(2, "192.0.2.1:10002".parse().unwrap());

    let ours = offer_from(&offer, &policy, &mut to_callee).unwrap();
    let ours = Description::parse(ours).unwrap();
    let callee = accept_answer(&ours, &answer).unwrap();
    let (_, caller) = answer_from(&offer, &callee, &policy, &mut to_caller).unwrap();

    let forth = path(&caller, &callee);
    assert_eq!(forth.get(8), Some((0, Convert::AlawToUlaw)));
    assert_eq!(forth.get(101), Some((96, Convert::Keep)));
    let back = path(&callee, &caller);
    assert_eq!(back.get(0), Some((8, Convert::UlawToAlaw)));
    assert_eq!(back.get(101), Some((101, Convert::Keep)), "the number of our offer");
    assert_eq!(back.get(96), Some((101, Convert::Keep)), "the number of its answer");
}

fn describe(media: &str) -> Description {
    let text = format!("v=0\no=- 1 1 IN IP4 192.0.2.9\ns=-\nc=IN IP4 192.0.2.9\nt=0 0\n{media}\n");
    Description::parse(Bytes::from(text)).unwrap()
}
