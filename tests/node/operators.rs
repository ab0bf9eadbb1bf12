//! Operators and monitors: the control socket, hanging up, the pages over HTTP.

use super::{
    phone::Phone,
    rig::{Rig, ask, at, fetch, until},
};
use tandem::{
    ids::Transport,
    observe::status::{Phase, Request, Response},
    shell::control,
};

#[tokio::test]
async fn the_control_socket_knows_a_call_and_ends_it() {
    let rig = Rig::new("");
    let node = rig.start().await;
    let mut phone = Phone::udp("1001", at(&node, Transport::Udp)).await;
    assert_eq!(phone.call("600").await.0.status(), 200);
    // The ACK has been seen once the phone's next request is answered.
    assert_eq!(phone.register(600).await.status(), 200);

    let Ok(Response::Calls(calls)) = control::ask(&rig.socket(), &Request::Calls).await else {
        panic!("no calls")
    };
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!((call.phase, call.from.expose()), (Phase::Announcing, "1001"));
    let call = call.call;

    let Response::Call(detail) = ask(&node, Request::CallShow { call }).await else { panic!() };
    assert_eq!(detail.legs.len(), 1, "{detail:?}");
    let Response::Ladder(rungs) = ask(&node, Request::CallLadder { call }).await else { panic!() };
    for message in ["INVITE", "200 OK", "ACK"] {
        assert!(rungs.to_string().contains(message), "{rungs}");
    }
    let Response::Phones(phones) = ask(&node, Request::Phones).await else { panic!() };
    assert_eq!((phones[0].calls, phones[0].contacts.len()), (1, 1));

    let Response::Done(_) = ask(&node, Request::Hangup { call }).await else { panic!() };
    phone.is_hung_up().await;
    until(&node, Request::Calls, |answer| *answer == Response::Calls(vec![])).await;
    let Response::NotFound(_) = ask(&node, Request::Hangup { call }).await else { panic!() };
    let record = control::ask(&rig.socket(), &Request::CallShow { call }).await;
    let Ok(Response::Record(record)) = record else { panic!("{record:?}") };
    assert_eq!(record.ending.by.word(), "tandem", "{record:?}");
    node.stop().await;
}

#[tokio::test]
async fn monitors_are_answered() {
    let rig = Rig::new("");
    let node = rig.start().await;
    let address = node.http().unwrap();
    let mut phone = Phone::udp("1001", at(&node, Transport::Udp)).await;
    assert_eq!(phone.register(600).await.status(), 200);
    for (path, wanted) in [("/healthz", "ok"), ("/readyz", "ready")] {
        let page = fetch(address, path).await;
        assert!(page.starts_with("HTTP/1.1 200") && page.contains(wanted), "{page}");
    }
    let page = fetch(address, "/metrics").await;
    let facts = ["tandem_sip_requests_total{method=\"REGISTER\"} 2", "result=\"bound\"} 1"];
    for fact in facts {
        assert!(page.contains(fact), "{fact}\n{page}");
    }
    node.stop().await;
}

/// Phones that are asked show how long they take.
#[tokio::test]
async fn a_phone_answers_pings_and_shows_its_round_trip() {
    let rig = Rig::new("");
    rig.configure_sip("ping_phones = \"1h\"");
    let node = rig.start().await;
    let mut phone = Phone::udp("1001", at(&node, Transport::Udp)).await;
    assert_eq!(phone.register(600).await.status(), 200);
    let options = phone.heard().await;
    assert_eq!(options.method_token(), "OPTIONS");
    assert!(options.uri().starts_with("sip:1001@"), "{}", options.uri());
    phone.answer(&options, 486, "").await;
    until(&node, Request::Phones, |answer| {
        let Response::Phones(rows) = answer else { panic!("{answer:?}") };
        rows[0].contacts[0].rtt_ms.is_some() && rows[0].contacts[0].missed_pings == 0
    })
    .await;
    node.stop().await;
}
