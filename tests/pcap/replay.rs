//! Says to the program what a client once said, with the identifiers of now in place of those of then.
//!
//! Tags, branches, Call-IDs, nonces and RSeq numbers that the program made are mapped by the order of
//! its messages; digests are computed anew, where the client knew the password.

use crate::capture::{Packet, What};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tandem::{
    config::{Config, UserSecret},
    ids::Flow,
    sim::{Network, Node, Pbx, World, check, pbx::Setup},
    sip::{
        HeaderName, Message,
        digest::{self, Algorithm, Challenge, Credentials},
    },
};

/// What the program is called in ladders.
const TANDEM: &str = "tandem";
/// How long it may take to come to rest after the last packet.
const REST: Duration = Duration::from_secs(900);

/// What came of a replay.
pub(crate) struct Outcome {
    pub(crate) ladder: String,
    /// What is wrong with it, whatever the ladder should be.
    pub(crate) faults: Vec<String>,
}

/// Lets a capture's clients speak to the program as it is now.
pub(crate) fn replay(packets: &[Packet], config: Arc<Config>) -> Outcome {
    let mut replay = Replay::new(config, packets);
    for packet in packets {
        replay.world.run_until(packet.at_ms);
        replay.play(packet);
    }
    let mut faults = vec![];
    if !replay.world.settle(REST) {
        faults.push(format!("{:?} do not come to rest", replay.world.busy()));
    }
    faults.extend(check::violations(&replay.world));
    Outcome { ladder: replay.world.ladder(), faults }
}

struct Replay {
    world: World,
    config: Arc<Config>,
    pbx: SocketAddr,
    names: BTreeMap<SocketAddr, String>,
    /// What the program said in the capture, up to where the replay is.
    said: Said,
}

impl Replay {
    fn new(config: Arc<Config>, packets: &[Packet]) -> Self {
        let mut listeners = config.sip.listen.iter().map(|listen| listen.address);
        let is_used = |address: &SocketAddr| packets.iter().any(|packet| packet.to == *address);
        let pbx = listeners.find(is_used).expect("somebody speaks to the program");
        let mut world = World::new(1, Network { latency: Duration::ZERO, ..Network::CLEAN });
        let setup = Setup {
            config: config.clone(),
            local: pbx,
            public: None,
            hosts: [].into(),
            prompts: [].into(),
            seed: 1,
        };
        world.add(TANDEM, &[pbx], Pbx::new(setup, world.now()));
        let names = names(packets, pbx);
        for (address, name) in &names {
            world.add(name, &[*address], Client::default());
        }
        Self { world, config, pbx, names, said: Said::default() }
    }

    fn play(&mut self, packet: &Packet) {
        let Packet { transport, from, to, what, .. } = packet;
        match what {
            What::Message(bytes) if *from == self.pbx => {
                let message = Message::parse(bytes.clone()).expect("we send SIP");
                self.said.note(*to, message);
            }
            What::Message(bytes) => {
                let bytes = self.translate(bytes);
                let flow = Flow { transport: *transport, local: *from, remote: self.pbx };
                self.world.with(&self.names[from], |client: &mut Client, _| {
                    client.outbox.push_back((flow, bytes));
                });
            }
            What::Closed if *from == self.pbx => {}
            What::Closed => self.world.disconnect(&self.names[from], TANDEM),
        }
    }

    /// Returns what the client would have said had it heard what the program says now.
    fn translate(&self, bytes: &Bytes) -> Bytes {
        let Ok(then) = Message::parse(bytes.clone()) else { return bytes.clone() };
        let mut now = Said::default();
        for sent in self.world.sent().iter().filter(|sent| &*sent.from == TANDEM) {
            now.note(sent.flow.remote, sent.message.clone());
        }
        let (head, body) = bytes.split_at(bytes.len() - then.body().len());
        let mut head = String::from_utf8(head.to_vec()).expect("our clients write UTF-8");
        for (then, now) in self.said.counterparts(&now) {
            head = head.replace(&then, &now);
        }
        let unsigned = Bytes::from([head.as_bytes(), body].concat());
        let now = Message::parse(unsigned).expect("as right as before");
        for (wrong, right) in self.digests(&then, &now) {
            head = head.replace(&*wrong, &right);
        }
        Bytes::from([head.as_bytes(), body].concat())
    }

    /// Returns the digests of a message with those that must stand in their place, as far as the
    /// captured ones were right.
    fn digests(&self, then: &Message, now: &Message) -> Vec<(Box<str>, Box<str>)> {
        let credentials = |message: &Message| {
            let names = [HeaderName::Authorization, HeaderName::ProxyAuthorization];
            names.into_iter().flat_map(|name| message.credentials(name)).collect::<Vec<_>>()
        };
        let method = now.method_token();
        let pairs = credentials(then).into_iter().zip(credentials(now));
        let digest = |(then, now): (Credentials, Credentials)| {
            let right = self.response(method, &then, &now)?;
            Some((now.response, right))
        };
        pairs.filter_map(digest).collect()
    }

    fn response(&self, method: &str, then: &Credentials, now: &Credentials) -> Option<Box<str>> {
        let user = self.config.users.get(&now.username)?;
        let ha1 = match (&user.secret, now.algorithm) {
            (UserSecret::Password(password), algorithm) => {
                digest::ha1(algorithm, &now.username, &now.realm, password.expose())
            }
            (UserSecret::Ha1 { md5: Some(ha1), .. }, Algorithm::Md5)
            | (UserSecret::Ha1 { sha256: Some(ha1), .. }, Algorithm::Sha256) => ha1.expose().into(),
            (UserSecret::Ha1 { .. }, _) => return None,
        };
        if !digest::verify(then, &ha1, method) {
            return None;
        }
        let challenge = Challenge {
            realm: now.realm.clone(),
            nonce: now.nonce.clone(),
            opaque: now.opaque.clone(),
            algorithm: now.algorithm,
            qop_auth: now.qop.is_some(),
            stale: false,
            proxy: false,
        };
        let (nc, cnonce) = (now.nc.unwrap_or(1), now.cnonce.as_deref().unwrap_or_default());
        let answer =
            digest::respond_with_ha1(&challenge, &now.username, &ha1, method, &now.uri, nc, cnonce);
        Credentials::parse(answer.as_bytes()).map(|right| right.response)
    }
}

/// The program's messages that are no repetitions, by what tells them apart in every run: a response
/// by the client's branch, a request by its receiver and method.
#[derive(Default)]
struct Said(BTreeMap<String, Vec<Message>>);

impl Said {
    fn note(&mut self, to: SocketAddr, message: Message) {
        let method = message.method_token();
        let key = if message.is_request() {
            format!("{method} to {to}")
        } else {
            format!("{} to {method} {}", message.status(), message.branch())
        };
        let known = self.0.entry(key).or_default();
        if known.iter().all(|known| known.bytes() != message.bytes()) {
            known.push(message);
        }
    }

    /// Returns the identifiers in these messages with those that stand in the others' place.
    fn counterparts(&self, others: &Self) -> Vec<(String, String)> {
        let mut found = vec![];
        for (key, messages) in &self.0 {
            let others = others.0.get(key).into_iter().flatten();
            for (message, other) in messages.iter().zip(others) {
                let pairs = minted(message).into_iter().zip(minted(other));
                found.extend(pairs.filter(|(then, now)| !then.is_empty() && then != now));
            }
        }
        found
    }
}

/// What the program may have made of random bits in a message: always as many, some of them empty.
fn minted(message: &Message) -> Vec<String> {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let mut found = vec![
        message.branch().to_owned(),
        message.call_id().to_owned(),
        text(message.from_tag()),
        text(message.to_tag()),
        message.number(HeaderName::RSeq).map_or_else(String::new, |n| format!("RAck: {n} ")),
    ];
    found.extend(message.challenges().into_iter().map(|challenge| challenge.nonce.into()));
    found
}

/// Calls everybody after the user of the first message, as far as nobody else is called that.
fn names(packets: &[Packet], pbx: SocketAddr) -> BTreeMap<SocketAddr, String> {
    let mut names = BTreeMap::new();
    for Packet { from, to, what, .. } in packets {
        let What::Message(bytes) = what else { continue };
        let Ok(message) = Message::parse(bytes.clone()) else { continue };
        let client = if *from == pbx { *to } else { *from };
        let is_client_asking = message.is_request() == (*from != pbx);
        let party = if is_client_asking { message.from() } else { message.to() };
        let uri = party.parsed_uri().expect("a URI");
        let user = uri.user.unwrap_or(uri.host).to_owned();
        let taken = |name: &str| names.values().any(|known| known == name);
        let mut name = user.clone();
        let mut serial = 1;
        while taken(&name) {
            serial += 1;
            name = format!("{user}/{serial}");
        }
        names.entry(client).or_insert(name);
    }
    names
}

/// A client: it says what it said, whatever it hears.
#[derive(Default)]
struct Client {
    outbox: VecDeque<(Flow, Bytes)>,
}

impl Node for Client {
    fn receive(&mut self, _: Flow, _: Bytes, _: Instant) {}

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_timeout(&mut self) -> Option<Instant> {
        None
    }

    fn poll_transmit(&mut self) -> Option<(Flow, Bytes)> {
        self.outbox.pop_front()
    }

    fn is_idle(&self) -> bool {
        true
    }
}
