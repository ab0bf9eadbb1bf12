//! A shard and everybody around it, recorded once and played again: calls and registrations without a
//! socket, a thread or a peer that takes time of its own.
//!
//! Owns: the peers while a scene is recorded, and the list of what the shard then hears.
//! Never: measures; it only offers what can be measured.

mod peers;

use bytes::Bytes;
use peers::Peers;
use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tandem::{
    config::{self, Config, Files},
    ids::{Entropy, Flow, MintKey, ShardId},
    media,
    registrar::Location,
    shard::{Answer, Output, Shard, Shared},
    sim::epoch,
};

/// Where the PBX is, and who is around it.
pub(crate) const PBX: &str = "10.0.0.1:5060";
pub(crate) const CALLER: &str = "192.0.2.10:5060";
pub(crate) const CARRIER: &str = "192.0.2.20:5060";
pub(crate) const PHONE: &str = "10.0.0.77:5060";

/// How many users there are: `2000` and those after it.
const USERS: usize = 1000;
/// What the wall clock says at the beginning.
const WALL_S: u64 = 1_793_700_000;

/// What happens again and again in a scene.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// A call from one trunk to another, known by their addresses; the caller ID is forced.
    Trunk,
    /// A call from a phone, challenged, to a trunk.
    Phone,
    /// A registration: challenged, then granted.
    Register,
}

/// What the shard hears.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Message(Flow, Bytes),
    Media(media::Event),
    Answer(Answer),
    Timeout,
}

/// What the shard hears, and when.
pub(crate) type Script = Vec<(Instant, Input)>;

/// A recorded scene.
pub(crate) struct Scene {
    config: Arc<Config>,
    /// When it begins.
    pub(crate) start: Instant,
    /// What makes the calls that are held all the time.
    pub(crate) held: Script,
    /// What is measured.
    pub(crate) script: Script,
}

impl Scene {
    /// Records a scene: so many calls are set up and held, then `count` more happen from their beginning
    /// to their end, one every millisecond.
    pub(crate) fn record(kind: Kind, held: usize, count: usize, algorithm: &str) -> Self {
        let config = config(algorithm);
        let start = epoch();
        let mut peers = Peers::new(shard(config.clone(), start), start);
        for _ in 0..held {
            peers.set_up(kind);
            peers.pass(Duration::from_millis(1));
        }
        let held = peers.take_script();
        for _ in 0..count {
            match kind {
                Kind::Trunk | Kind::Phone => {
                    let call = peers.set_up(kind);
                    peers.hang_up(call);
                }
                Kind::Register => peers.register(),
            }
            peers.pass(Duration::from_millis(1));
        }
        Self { config, start, held, script: peers.take_script() }
    }

    /// Returns a shard that holds what is held.
    pub(crate) fn shard(&self) -> Shard {
        let mut shard = shard(self.config.clone(), self.start);
        play(&mut shard, self.held.clone());
        shard
    }
}

/// Returns the first message of a recorded call that begins with `start`.
pub(crate) fn message(kind: Kind, start: &str) -> Bytes {
    let scene = Scene::record(kind, 0, 1, "SHA-256");
    let found = scene.script.into_iter().find_map(|(_, input)| match input {
        Input::Message(_, bytes) if bytes.starts_with(start.as_bytes()) => Some(bytes),
        Input::Message(..) | Input::Media(_) | Input::Answer(_) | Input::Timeout => None,
    });
    found.unwrap()
}

/// Lets the shard hear a script. Returns how many messages it has sent.
#[inline(never)]
pub(crate) fn play(shard: &mut Shard, script: Script) -> usize {
    let mut sent = 0;
    for (now, input) in script {
        match input {
            // Each datagram comes in a buffer of its own.
            Input::Message(flow, bytes) => {
                shard.handle_message(flow, Bytes::copy_from_slice(&bytes), now);
            }
            Input::Media(event) => shard.handle_media(event, now),
            Input::Answer(answer) => shard.handle_answer(answer, now),
            Input::Timeout => shard.handle_timeout(now),
        }
        while let Some(output) = shard.poll_output() {
            sent += usize::from(matches!(output, Output::Transmit { .. }));
            black_box(output);
        }
        black_box(shard.poll_timeout());
    }
    sent
}

fn shard(config: Arc<Config>, start: Instant) -> Shard {
    let key = MintKey::draw(&mut Entropy::from_u64(1));
    let shared = Shared { config, location: Location::new(), key };
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(WALL_S);
    Shard::new(ShardId(0), shared, [7; 32], start, wall)
}

fn config(algorithm: &str) -> Arc<Config> {
    let mut text = format!(
        r#"
dialplan = "rules.toml"
[sip]
listen = ["udp:{PBX}"]
digest = ["{algorithm}"]
[trunk.caller]
uri       = "caller.example.com"
address   = "{CALLER}"
caller_id = "+14155550100"
[trunk.carrier]
uri       = "carrier.example.com"
address   = "{CARRIER}"
caller_id = "+14155550199"
"#
    );
    for user in 0..USERS {
        text.push_str(&format!("[user.{}]\npassword = \"{}\"\n", user_name(user), password(user)));
    }
    let rules = "[[inbound.rule]]\nmatch = \"_+X.\"\ndial = \"trunk:carrier\"\n\
                 [[internal.rule]]\nmatch = \"_1XXX\"\ndial = \"user:{number}\"\n\
                 [[internal.rule]]\nmatch = \"_+X.\"\ndial = \"trunk:carrier\"\n";
    let files = Files::default().with("pbx.toml", &text).with("rules.toml", rules);
    let checked = config::check("pbx.toml", &files);
    match checked.config {
        Some(config) => Arc::new(config),
        None => panic!("{}", checked.report),
    }
}

/// Returns the name of the n-th user.
pub(crate) fn user_name(user: usize) -> String {
    (2000 + user % USERS).to_string()
}

/// Returns the password of the n-th user.
pub(crate) fn password(user: usize) -> String {
    format!("the secret of {}", user_name(user))
}
