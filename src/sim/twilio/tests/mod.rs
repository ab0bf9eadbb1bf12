//! Each rule, broken by a client that says what a bad PBX would; and a client that breaks none.

mod calls_in;
mod client;
mod connections;
mod inside;
mod media;
mod places;
mod placing;
mod right;

use super::*;

/// A rule, and a client that breaks it and no other.
type Wrong = (Rule, fn() -> Vec<Rule>);

#[test]
fn every_rule_has_a_client_that_breaks_it() {
    let clients: [&[Wrong]; 5] = [
        placing::CLIENTS,
        inside::CLIENTS,
        connections::CLIENTS,
        media::CLIENTS,
        calls_in::CLIENTS,
    ];
    let clients = clients.concat();
    let unlike: Vec<_> = clients
        .iter()
        .map(|(rule, play)| (rule, play()))
        .filter(|(rule, broken)| broken != &[**rule])
        .collect();
    assert!(unlike.is_empty(), "who should break one rule broke others: {unlike:?}");
    let are_broken: BTreeSet<Rule> = clients.iter().map(|(rule, _)| *rule).collect();
    let whole: Vec<&Rule> = Rule::ALL.iter().filter(|rule| !are_broken.contains(rule)).collect();
    assert!(whole.is_empty(), "nobody breaks {whole:?}");
}
