//! Who is answered no more for a while: sources that guess passwords, scan or flood.
//!
//! Owns: what is held against each source, the bans, how long each lasts, and the bounds of all that.
//! Never: decides who is above suspicion (trunks, registered phones): its caller does; or reads a clock.
//!
//! A source is an IPv4 address, or an IPv6 /64. What proves its address (a connection; an answer to a
//! nonce that was made for this address) is held apart from what anybody could send in its name: who
//! forges datagrams can neither lengthen a ban nor push out what is known of real guessers.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used
)]

use crate::network::Network;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, SystemTime},
};

/// The most bans, past ones included. The least important one goes first.
const BANS_MAX: usize = 10_000;
/// The most sources of each kind against which something is held.
const SUSPECTS_MAX: usize = 4_096;
/// How long after its end a ban still makes the next one longer.
pub const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// What is held against a source.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Offence {
    /// A wrong password, or an unknown user: nobody outside can tell which.
    Guess,
    /// A message that cannot be read, or a request of a known scanner.
    Junk,
}

impl Offence {
    /// Every offence.
    pub const ALL: [Self; 2] = [Self::Guess, Self::Junk];

    /// Returns the word for it in logs, lists and the store.
    pub fn word(self) -> &'static str {
        match self {
            Self::Guess => "guesses",
            Self::Junk => "junk",
        }
    }

    /// Reads what [`Self::word`] returns.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|offence| offence.word() == word)
    }
}

/// When a source is banned, and for how long: `[bans]`.
#[derive(Clone, Debug, PartialEq)]
pub struct BanPolicy {
    /// So many guesses; `None`: any number.
    pub guesses: Option<u32>,
    /// So many pieces of junk; `None`: any number.
    pub junk: Option<u32>,
    /// Within this time.
    pub within: Duration,
    /// How long the first ban holds; each further one twice as long as the one before.
    pub first: Duration,
    /// The longest ban.
    pub longest: Duration,
    /// Who is never banned.
    pub never: Vec<Network>,
    /// What the User-Agent of a scanner contains, in lower case.
    pub scanners: Vec<Box<str>>,
}

/// A source that is answered no more until then.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ban {
    /// An address, or the /64 of an IPv6 address.
    pub source: Network,
    /// Why.
    pub why: Offence,
    /// Whether the address was proven to be no forgery.
    pub is_proven: bool,
    /// From when.
    pub since: SystemTime,
    /// The first moment at which it holds no more.
    pub until: SystemTime,
}

impl Ban {
    /// Returns whether it holds.
    pub fn holds(&self, wall: SystemTime) -> bool {
        self.since <= wall && wall < self.until
    }

    /// Returns how long it holds altogether.
    pub fn length(&self) -> Duration {
        self.until.duration_since(self.since).unwrap_or_default()
    }

    fn is_forgotten(&self, wall: SystemTime) -> bool {
        wall.duration_since(self.until).is_ok_and(|past| past >= REMEMBERED)
    }
}

/// A ban, and how much it has kept out.
#[derive(Debug)]
struct Entry {
    ban: Ban,
    dropped: u64,
}

/// What is held against a source that is not banned.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    since: SystemTime,
    count: u32,
}

/// The suspects of one kind.
type Suspects = BTreeMap<(Network, Offence), Suspect>;

/// All bans, and everybody against whom something is held.
#[derive(Debug, Default)]
pub struct Bans {
    entries: BTreeMap<Network, Entry>,
    proven: Suspects,
    unproven: Suspects,
}

impl Bans {
    /// Returns whether there is no ban, past ones included.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns whether messages from `ip` are not to be looked at.
    pub fn holds(&self, ip: IpAddr, wall: SystemTime) -> bool {
        let entry = self.entries.get(&Network::source(ip));
        entry.is_some_and(|entry| entry.ban.holds(wall))
    }

    /// Counts a message that was not looked at.
    pub fn dropped(&mut self, ip: IpAddr) {
        if let Some(entry) = self.entries.get_mut(&Network::source(ip)) {
            entry.dropped = entry.dropped.saturating_add(1);
        }
    }

    /// Holds something against a source. Returns whether that was once too often; what was held
    /// against it is then forgotten, and its caller bans it unless it is above suspicion.
    pub fn strike(
        &mut self,
        ip: IpAddr,
        (offence, is_proven): (Offence, bool),
        policy: &BanPolicy,
        wall: SystemTime,
    ) -> bool {
        let max = match offence {
            Offence::Guess => policy.guesses,
            Offence::Junk => policy.junk,
        };
        let Some(max) = max else { return false };
        let suspects = if is_proven { &mut self.proven } else { &mut self.unproven };
        let key = (Network::source(ip), offence);
        if suspects.len() >= SUSPECTS_MAX && !suspects.contains_key(&key) {
            make_room(suspects, policy.within, wall);
        }
        let suspect = suspects.entry(key).or_insert(Suspect { since: wall, count: 0 });
        if !is_within(suspect.since, policy.within, wall) {
            *suspect = Suspect { since: wall, count: 0 };
        }
        suspect.count = suspect.count.saturating_add(1);
        let is_too_often = suspect.count >= max;
        if is_too_often {
            suspects.remove(&key);
        }
        is_too_often
    }

    /// Bans a source. What a forger can bring about holds for the shortest time, always.
    pub fn ban(
        &mut self,
        ip: IpAddr,
        (why, is_proven): (Offence, bool),
        policy: &BanPolicy,
        wall: SystemTime,
    ) -> Ban {
        let source = Network::source(ip);
        let before = self.entries.get(&source).map(|entry| &entry.ban);
        let before = before.filter(|ban| ban.is_proven && !ban.is_forgotten(wall));
        let length = match before {
            Some(before) if is_proven => before.length().saturating_mul(2).max(policy.first),
            Some(_) | None => policy.first,
        };
        let until = wall.checked_add(length.min(policy.longest)).unwrap_or(wall);
        let ban = Ban { source, why, is_proven, since: wall, until };
        self.take_up(ban.clone(), wall);
        ban
    }

    /// Takes up a ban of before a restart.
    pub fn take_up(&mut self, ban: Ban, wall: SystemTime) {
        if self.entries.len() >= BANS_MAX && !self.entries.contains_key(&ban.source) {
            self.entries.retain(|_, entry| !entry.ban.is_forgotten(wall));
        }
        if self.entries.len() >= BANS_MAX && !self.entries.contains_key(&ban.source) {
            let rank = |ban: &Ban| (ban.holds(wall), ban.is_proven, ban.until);
            let least = self.entries.values().min_by_key(|entry| rank(&entry.ban));
            if let Some(least) = least.map(|entry| entry.ban.source) {
                self.entries.remove(&least);
            }
        }
        self.entries.insert(ban.source, Entry { ban, dropped: 0 });
    }

    /// Ends every ban of a source in `network`, and of one that contains it, and forgets that there
    /// was one. Returns those that still held.
    pub fn lift(&mut self, network: Network, wall: SystemTime) -> Vec<Network> {
        let mut held = vec![];
        self.entries.retain(|source, entry| {
            let is_meant = source.overlaps(network);
            if is_meant && entry.ban.holds(wall) {
                held.push(*source);
            }
            !is_meant
        });
        held
    }

    /// Counts the bans that have not ended.
    pub fn left(&self, wall: SystemTime) -> usize {
        self.entries.values().filter(|entry| wall < entry.ban.until).count()
    }

    /// Returns the bans that hold, and how many messages each has kept out.
    pub fn list(&self, wall: SystemTime) -> impl Iterator<Item = (&Ban, u64)> {
        let all = self.entries.values().map(|entry| (&entry.ban, entry.dropped));
        all.filter(move |(ban, _)| ban.holds(wall))
    }
}

/// Forgets old suspicions; where there are none, those that are one offence strong; at last all.
fn make_room(suspects: &mut Suspects, within: Duration, wall: SystemTime) {
    suspects.retain(|_, suspect| is_within(suspect.since, within, wall));
    if suspects.len() >= SUSPECTS_MAX {
        suspects.retain(|_, suspect| suspect.count > 1);
    }
    if suspects.len() >= SUSPECTS_MAX {
        suspects.clear();
    }
}

fn is_within(since: SystemTime, within: Duration, wall: SystemTime) -> bool {
    wall.duration_since(since).is_ok_and(|passed| passed < within)
}

/// Returns whether a User-Agent is that of a scanner.
pub fn is_scanner(user_agent: &[u8], scanners: &[Box<str>]) -> bool {
    // Few places begin as any of them does: the last five bits of a letter are the same in both cases.
    let mark = |byte: &u8| 1_u32.wrapping_shl(u32::from(*byte) & 31);
    let firsts = scanners.iter().filter_map(|scanner| scanner.as_bytes().first());
    let marks = firsts.fold(0, |marks, first| marks | mark(first));
    let mut rest = user_agent;
    while let Some((byte, after)) = rest.split_first() {
        let begins = |scanner: &[u8]| {
            let word = rest.get(..scanner.len()).filter(|_| !scanner.is_empty());
            word.is_some_and(|word| word.eq_ignore_ascii_case(scanner))
        };
        if marks & mark(byte) != 0 && scanners.iter().any(|scanner| begins(scanner.as_bytes())) {
            return true;
        }
        rest = after;
    }
    false
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test's sums are its own")]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    const GUESS: (Offence, bool) = (Offence::Guess, true);
    const FORGED: (Offence, bool) = (Offence::Junk, false);

    fn policy() -> BanPolicy {
        BanPolicy {
            guesses: Some(20),
            junk: Some(100),
            within: Duration::from_secs(600),
            first: Duration::from_secs(300),
            longest: Duration::from_secs(1000),
            never: vec![],
            scanners: vec!["friendly-scanner".into()],
        }
    }

    fn ip(n: u32) -> IpAddr {
        IpAddr::from(std::net::Ipv4Addr::from(0xc000_0200 + n))
    }

    fn at(s: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + s)
    }

    /// Strikes until it is once too often; returns how often that was.
    fn strikes(bans: &mut Bans, ip: IpAddr, offence: (Offence, bool), s: u64) -> usize {
        1 + (0..1000).take_while(|_| !bans.strike(ip, offence, &policy(), at(s))).count()
    }

    #[test]
    fn a_guesser_has_twenty_guesses_and_then_longer_and_longer_silence() {
        let mut bans = Bans::default();
        let mut now = 0;
        for length in [300, 600, 1000, 1000] {
            assert_eq!(strikes(&mut bans, ip(1), GUESS, now), 20);
            let ban = bans.ban(ip(1), GUESS, &policy(), at(now));
            assert_eq!(ban.length(), Duration::from_secs(length));
            assert!(bans.holds(ip(1), at(now)) && bans.holds(ip(1), at(now + length - 1)));
            assert!(!bans.holds(ip(1), at(now + length)) && !bans.holds(ip(2), at(now)));
            now += length;
        }
        // After a day of peace everything begins anew.
        now += REMEMBERED.as_secs();
        assert_eq!(bans.ban(ip(1), GUESS, &policy(), at(now)).length(), policy().first);
    }

    #[test]
    fn slow_mistakes_are_forgiven() {
        let mut bans = Bans::default();
        for n in 0..1000 {
            assert!(!bans.strike(ip(1), GUESS, &policy(), at(n * 32)), "{n}");
        }
    }

    #[test]
    fn nothing_is_counted_that_is_switched_off() {
        let mut bans = Bans::default();
        let off = BanPolicy { guesses: None, junk: Some(1), ..policy() };
        assert!((0..1000).all(|_| !bans.strike(ip(1), GUESS, &off, at(0))));
        assert!(bans.strike(ip(1), FORGED, &off, at(0)));
    }

    #[test]
    fn a_forger_brings_about_short_bans_only_and_hides_nobody() {
        let mut bans = Bans::default();
        for n in 0..19 {
            assert!(!bans.strike(ip(1), GUESS, &policy(), at(0)), "{n}");
        }
        // From more addresses than are kept apart, each twice: the guesser is not forgotten.
        for n in 0..50_000 {
            for _ in 0..2 {
                assert!(!bans.strike(ip(n), FORGED, &policy(), at(0)));
            }
        }
        assert!(bans.unproven.len() <= SUSPECTS_MAX);
        assert!(bans.strike(ip(1), GUESS, &policy(), at(0)));
        for n in 0..4 {
            let now = n * 300;
            assert_eq!(bans.ban(ip(7), FORGED, &policy(), at(now)).length(), policy().first);
        }
    }

    #[test]
    fn there_is_a_most_of_everything_and_the_least_goes_first() {
        let mut bans = Bans::default();
        bans.ban(ip(0), FORGED, &policy(), at(0));
        for n in 1..=BANS_MAX as u32 {
            bans.ban(ip(n), GUESS, &policy(), at(1));
        }
        assert_eq!(bans.entries.len(), BANS_MAX);
        assert!(!bans.holds(ip(0), at(1)) && bans.holds(ip(1), at(1)));
        let end = 1 + 300 + REMEMBERED.as_secs();
        bans.ban(ip(0), GUESS, &policy(), at(end));
        assert_eq!(bans.entries.len(), 1, "those of yesterday are forgotten at last");
        for n in 0..2 * SUSPECTS_MAX as u32 {
            bans.strike(ip(n), GUESS, &policy(), at(end));
        }
        assert!(bans.proven.len() <= SUSPECTS_MAX);
    }

    #[test]
    fn an_operator_lifts_a_ban() {
        let mut bans = Bans::default();
        let (v6, other): (IpAddr, IpAddr) =
            ("2001:db8:1:2:3::4".parse().unwrap(), "2001:db8:1:2::9".parse().unwrap());
        bans.ban(v6, GUESS, &policy(), at(0));
        bans.ban(ip(1), GUESS, &policy(), at(0));
        bans.dropped(other);
        let listed: Vec<_> = bans.list(at(1)).map(|(b, n)| (b.source.to_string(), n)).collect();
        let want = [("192.0.2.1".to_owned(), 0), ("2001:db8:1:2::/64".to_owned(), 1)];
        assert_eq!(listed, want);
        assert!(bans.holds(other, at(1)), "the whole /64 is one source");
        let network = |text: &str| Network::parse(text).unwrap();
        assert_eq!(bans.lift(network("2001:db8:1:2::7"), at(1)).len(), 1);
        assert_eq!(bans.lift(network("192.0.2.2"), at(1)), []);
        assert_eq!(bans.lift(network("192.0.2.0/24"), at(1)), [network("192.0.2.1")]);
        assert!(bans.is_empty());
        // It is forgotten, too: the next ban is a first one.
        assert_eq!(bans.ban(ip(1), GUESS, &policy(), at(2)).length(), policy().first);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_lengthen_a_ban() {
        let mut bans = Bans::default();
        bans.ban(ip(1), GUESS, &policy(), at(1000));
        assert!(!bans.holds(ip(1), at(0)));
    }

    #[test]
    fn scanners_are_known_by_a_part_of_their_name() {
        for (agent, is) in [
            ("friendly-scanner", true),
            ("x Friendly-Scanner/1", true),
            ("friendly-scanne", false),
            ("Linphone/5.2", false),
            ("", false),
        ] {
            assert_eq!(is_scanner(agent.as_bytes(), &policy().scanners), is, "{agent}");
        }
        assert!(!is_scanner(b"", &[]) && !is_scanner(b"x", &["".into()]));
    }

    #[test]
    fn offences_print_what_they_read() {
        assert!(Offence::ALL.iter().all(|o| Offence::parse(o.word()) == Some(*o)));
        assert_eq!(Offence::parse("else"), None);
    }
}
