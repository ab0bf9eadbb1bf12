//! Who guesses passwords, and those beside it.

use crate::subject::{HOME, PASSWORD, STRANGER, Subject, prove};
use std::time::Duration;

/// At any pace, a handful are looked at; the right one is not told from the others. The owner, elsewhere, and
/// who is registered from the same address, go on.
#[test]
fn three_hundred_from_one_address() {
    for pause in [0, 50, 1000] {
        let mut subject = Subject::new();
        assert_eq!(subject.register("1002", PASSWORD, STRANGER), 200);
        let mut statuses = vec![];
        for n in 0..300 {
            statuses.push(subject.register("1001", &format!("guess {n}"), STRANGER));
            subject.pass(Duration::from_millis(pause));
        }
        let judged = subject.proofs("wrong");
        assert!((5..=20).contains(&judged), "{judged} judged, one in {pause} ms");
        assert_eq!(statuses.iter().filter(|status| **status == 401).count() as u64, judged);
        assert!(statuses.iter().all(|status| [401, 503].contains(status)), "{statuses:?}");
        if pause < 1000 {
            assert_eq!(subject.register("1001", PASSWORD, STRANGER), 503, "nor is the right one");
        }
        assert_eq!(subject.register("1001", PASSWORD, HOME), 200, "the owner");
        assert_eq!(subject.register("1002", PASSWORD, STRANGER), 200, "a neighbour of the guesser");
        subject.pass(Duration::from_secs(3600));
        assert_eq!(subject.register("1001", PASSWORD, STRANGER), 200, "an hour later");
    }
}

/// Also of a neighbour: who shares an address with a phone cannot guess that phone's password for ever.
#[test]
fn a_neighbour_guesses_no_more_than_a_stranger() {
    let mut subject = Subject::new();
    assert_eq!(subject.register("1002", PASSWORD, HOME), 200);
    for n in 0..300 {
        subject.register("1002", &format!("guess {n}"), HOME);
    }
    assert!((5..=20).contains(&subject.proofs("wrong")), "{}", subject.proofs("wrong"));
    assert_eq!(subject.register("1001", PASSWORD, HOME), 200, "the others there are judged apart");
}

/// The same answers for users that there are and users that there are not.
#[test]
fn nobody_learns_who_exists() {
    let of = |user: &str| {
        let mut subject = Subject::new();
        (0..30).map(|n| subject.register(user, &format!("guess {n}"), STRANGER)).collect::<Vec<_>>()
    };
    assert_eq!(of("1001"), of("4711"));
}

/// A proof is for one request and one sender.
#[test]
fn a_proof_is_not_for_others() {
    for (method, user, uri, want) in [
        ("REGISTER", "1001", "sip:192.0.2.1", 200),
        ("REGISTER", "1001", "sip:elsewhere.example.com", 400),
        ("REGISTER", "1001", "sip:1002@192.0.2.1", 400),
        ("REGISTER", "1002", "sip:192.0.2.1", 403),
        ("INVITE", "1002", "sip:192.0.2.1", 403),
    ] {
        let mut subject = Subject::new();
        let contact = format!("Contact: <sip:{user}@{STRANGER}>\r\n");
        let challenged = subject.ask(&subject.request(method, user, &contact), STRANGER);
        let proof = prove(&challenged, "1001", PASSWORD, method, uri);
        let again =
            subject.request(method, user, &(contact + &proof)).replace("z9hG4bK", "z9hG4bKx");
        assert_eq!(subject.ask(&again, STRANGER).status(), want, "{method} of {user} for {uri}");
    }
}
