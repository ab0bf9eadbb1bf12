//! The location service (RFC 3261 10.1): which contacts an address of record is bound to.
//!
//! Owns: the one map that shards share, behind verbs that copy values in and out.
//! Never: lets a guard of the map out, judges a REGISTER, or depends on the map's order.

use crate::{
    ids::{Flow, Transport},
    network::Network,
    sip::Uri,
};
use dashmap::DashMap;
use std::{
    cmp::Reverse,
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

/// `q` of a contact that names none: 1.0.
pub const Q_MAX: u16 = 1000;

/// One contact of a user, for a time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Binding {
    /// The user.
    pub aor: Box<str>,
    /// The contact's URI as the phone wrote it.
    pub contact: Box<str>,
    /// How to reach it: over the flow it registered on, or at its own address where that works.
    pub flow: Flow,
    /// Where the REGISTER came from.
    pub received: SocketAddr,
    /// The proxies in between (RFC 3327), each as a Route value, nearest to us first.
    pub path: Vec<Box<str>>,
    /// The device (`+sip.instance`, RFC 5626 4.1).
    pub instance: Option<Box<str>>,
    /// Which of the device's flows this is (RFC 5626 4.2); only where outbound applies.
    pub reg_id: Option<u32>,
    /// The phone's own preference, in thousandths.
    pub q: u16,
    /// Of the REGISTER.
    pub call_id: Box<str>,
    /// Of the REGISTER.
    pub cseq: u32,
    /// When it was last bound. Wall time: survives a restart.
    pub updated_at: SystemTime,
    /// When it ends. Wall time: survives a restart.
    pub expires_at: SystemTime,
    /// What the phone calls itself.
    pub user_agent: Option<Box<str>>,
    /// Until when it lasts as the store has it, or will: not after [`Self::expires_at`].
    pub stored_until: SystemTime,
}

/// A refresh that prolongs by less than one part in so many of what was granted is not stored: whoever
/// refreshes so often comes back long before the stored end, which is that much early after a crash.
const STORED_PARTS: u32 = 20;

impl Binding {
    /// Returns whether the store must be told of it.
    pub fn is_news(&self) -> bool {
        self.stored_until == self.expires_at
    }

    /// Takes the place of `old` in the store where it says the same of the phone, and ends little later.
    pub(super) fn refresh(&mut self, old: &Self) {
        let granted = self.expires_at.duration_since(self.updated_at).unwrap_or_default();
        let longer = self.expires_at.duration_since(old.stored_until);
        let is_little = longer.is_ok_and(|longer| longer < granted / STORED_PARTS);
        if is_little && self.says_the_same(old) {
            self.stored_until = old.stored_until;
        }
    }

    /// Compares all but numbers and times.
    fn says_the_same(&self, other: &Self) -> bool {
        let Self { aor, contact, flow, received, path, instance, .. } = self;
        let is_there = (aor, contact, flow) == (&other.aor, &other.contact, &other.flow)
            && (received, path, instance) == (&other.received, &other.path, &other.instance);
        let Self { reg_id, q, call_id, user_agent, cseq: _, updated_at: _, .. } = self;
        is_there
            && (reg_id, q) == (&other.reg_id, &other.q)
            && (call_id, user_agent) == (&other.call_id, &other.user_agent)
    }

    /// Returns the Request-URI, the flow and the Route values of a request to this contact.
    ///
    /// The URI is the contact without its headers (RFC 3261 19.1.1 forbids them there), also where
    /// the flow leads elsewhere: a phone behind a NAT recognises itself by what it registered.
    pub fn target(&self) -> (String, Flow, Vec<Box<str>>) {
        let uri = self.contact.split_once('?').map_or(&*self.contact, |(uri, _headers)| uri);
        (uri.to_owned(), self.flow, self.path.clone())
    }

    /// Returns whether the binding has ended.
    pub fn is_expired(&self, wall: SystemTime) -> bool {
        self.expires_at <= wall
    }

    /// Returns the whole seconds left, rounded up, so that a living binding never shows 0.
    pub fn remaining_s(&self, wall: SystemTime) -> u64 {
        let left = self.expires_at.duration_since(wall).unwrap_or_default();
        left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0))
    }

    /// Returns whether `other` takes this one's place: the same flow of the same device
    /// (RFC 5626 6), or the same URI (RFC 3261 10.3) unless two devices say that they are two.
    pub fn is_replaced_by(&self, other: &Self) -> bool {
        match (&self.instance, &other.instance) {
            (Some(a), Some(b)) => {
                let same_flow = self.reg_id == other.reg_id;
                a.eq_ignore_ascii_case(b) && same_flow
            }
            (None, _) | (_, None) => same_uri(&self.contact, &other.contact),
        }
    }

    /// Best first: by `q`, then the newest, then by text so that the order is total.
    fn rank(&self) -> impl Ord + use<> {
        (Reverse(self.q), Reverse(self.updated_at), self.contact.clone(), self.reg_id)
    }

    /// Returns whether the contact itself can be connected to, once its connection is gone.
    fn aim_at_contact(&mut self) -> bool {
        let address = contact_address(&self.contact);
        let Some(address) = address.filter(|a| a.ip() == self.received.ip()) else { return false };
        self.flow.remote = address;
        true
    }

    /// Moves the binding to a listener that exists: its own, else one like it.
    fn aim_from(&mut self, listeners: &[(Transport, SocketAddr)]) -> bool {
        let own = (self.flow.transport, self.flow.local);
        let is_like = |(transport, local): &&(Transport, SocketAddr)| {
            *transport == own.0 && local.is_ipv4() == own.1.is_ipv4()
        };
        let found = listeners.iter().find(|l| **l == own).or(listeners.iter().find(is_like));
        let Some((_, local)) = found else { return false };
        self.flow.local = *local;
        true
    }
}

/// All bindings. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Location(Arc<Maps>);

#[derive(Debug, Default)]
struct Maps {
    by_user: DashMap<Box<str>, Vec<Binding>>,
    /// Users with bindings to a connection. Whoever changes bindings sees to it that none is missing;
    /// one that is there in vain is harmless.
    by_flow: DashMap<Flow, BTreeSet<Box<str>>>,
}

impl Location {
    /// Creates an empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a binding in place of those that it replaces.
    pub fn bind(&self, binding: Binding) {
        self.update(&binding.aor.clone(), |bindings| {
            bindings.retain(|old| !old.is_replaced_by(&binding));
            // Most users have one phone: room for four would be most of what is kept for them.
            bindings.reserve_exact(1);
            bindings.push(binding);
        });
    }

    /// Removes one contact, named as [`Binding::contact`] has it.
    pub fn unbind(&self, aor: &str, contact: &str) -> Vec<Binding> {
        self.take(aor, |binding| &*binding.contact == contact)
    }

    /// Removes all contacts of a user.
    pub fn unbind_all(&self, aor: &str) -> Vec<Binding> {
        self.take(aor, |_| true)
    }

    /// Returns where to reach a user, best first. Of a device with several flows (RFC 5626 7) only
    /// the newest flow is named: the phone shall ring once.
    pub fn find(&self, aor: &str, wall: SystemTime) -> Vec<Binding> {
        let mut found =
            self.0.by_user.get(aor).map(|bindings| bindings.clone()).unwrap_or_default();
        found.retain(|binding| !binding.is_expired(wall));
        found.sort_by_cached_key(|binding| (Reverse(binding.updated_at), binding.reg_id));
        let mut devices: Vec<Box<str>> = vec![];
        found.retain(|binding| match &binding.instance {
            Some(device) if devices.contains(device) => false,
            Some(device) => {
                devices.push(device.clone());
                true
            }
            None => true,
        });
        found.sort_by_cached_key(Binding::rank);
        found
    }

    /// Removes and returns what has ended of a user's bindings, and tells when the first of the
    /// others ends.
    pub fn sweep(&self, aor: &str, wall: SystemTime) -> (Vec<Binding>, Option<SystemTime>) {
        let ended = self.take(aor, |binding| binding.is_expired(wall));
        let next = self.0.by_user.get(aor).and_then(|left| left.iter().map(|b| b.expires_at).min());
        (ended, next)
    }

    /// Returns every user with bindings, and when the first of these ends.
    pub fn ends(&self) -> Vec<(Box<str>, SystemTime)> {
        let first = |bindings: &Vec<Binding>| bindings.iter().map(|b| b.expires_at).min();
        let each = self.0.by_user.iter();
        each.filter_map(|entry| Some((entry.key().clone(), first(entry.value())?))).collect()
    }

    /// Returns how many users can be reached, and over how many bindings.
    pub fn count(&self, wall: SystemTime) -> (u64, u64) {
        let live = |entry: &Vec<Binding>| entry.iter().filter(|b| !b.is_expired(wall)).count();
        let each = self.0.by_user.iter().map(|entry| live(entry.value()) as u64);
        each.fold((0, 0), |(users, all), n| (users + u64::from(n > 0), all + n))
    }

    /// Removes and returns what was bound to a connection that is closed. A datagram flow has
    /// nothing to close: nothing happens.
    pub fn drop_flow(&self, flow: Flow) -> Vec<Binding> {
        if !flow.transport.is_reliable() {
            return vec![];
        }
        let Some((_, users)) = self.0.by_flow.remove(&flow) else { return vec![] };
        let mut taken = vec![];
        for user in users {
            taken.extend(self.take(&user, |binding| binding.flow == flow));
        }
        sort(&mut taken);
        taken
    }

    /// Returns every binding by user, best first, for display and keep-alive.
    pub fn all(&self, wall: SystemTime) -> Vec<Binding> {
        let mut all: Vec<Binding> = vec![];
        self.0.by_user.iter().for_each(|entry| all.extend(entry.value().iter().cloned()));
        all.retain(|binding| !binding.is_expired(wall));
        sort(&mut all);
        all
    }

    /// Returns whether a phone is bound that registered from one of these addresses, or is reached
    /// there.
    pub fn is_bound_from(&self, source: Network, wall: SystemTime) -> bool {
        let is_there = |binding: &Binding| {
            let addresses = [binding.received.ip(), binding.flow.remote.ip()];
            !binding.is_expired(wall) && addresses.iter().any(|ip| source.contains(*ip))
        };
        self.0.by_user.iter().any(|entry| entry.value().iter().any(is_there))
    }

    /// Returns whether a phone is reached over this connection.
    pub fn has_flow(&self, flow: Flow) -> bool {
        self.0.by_flow.contains_key(&flow)
    }

    /// Returns whether nobody is bound.
    pub fn is_empty(&self) -> bool {
        self.0.by_user.is_empty()
    }

    /// Takes up what was bound before a restart and returns what cannot be: ended meanwhile, without
    /// a listener to send from, or bound to a connection that nobody but the phone can renew and that
    /// is none of the `connections` that still stand.
    pub fn restore(
        &self,
        bindings: impl IntoIterator<Item = Binding>,
        listeners: &[(Transport, SocketAddr)],
        connections: &BTreeSet<Flow>,
        wall: SystemTime,
    ) -> Vec<Binding> {
        let mut lost = vec![];
        for mut binding in bindings {
            let is_reachable = match binding.flow.transport {
                Transport::Tcp | Transport::Tls if connections.contains(&binding.flow) => true,
                Transport::Udp => true,
                Transport::Tcp => binding.aim_at_contact(),
                // Where phones listen at all, they have no certificate that could be checked.
                Transport::Tls => false,
            };
            if is_reachable && !binding.is_expired(wall) && binding.aim_from(listeners) {
                self.bind(binding);
            } else {
                lost.push(binding);
            }
        }
        sort(&mut lost);
        lost
    }

    /// Runs `change` on one user's bindings while nobody else can see or touch them.
    pub(super) fn update<R>(&self, aor: &str, change: impl FnOnce(&mut Vec<Binding>) -> R) -> R {
        let known = self.0.by_user.get_mut(aor);
        let mut entry = match known {
            Some(entry) => entry,
            None => self.0.by_user.entry(aor.into()).or_default(),
        };
        let before = connections(&entry);
        let result = change(entry.value_mut());
        let (after, is_empty) = (connections(&entry), entry.is_empty());
        drop(entry);
        if is_empty {
            self.0.by_user.remove_if(aor, |_, bindings| bindings.is_empty());
        }
        for flow in after.iter().filter(|flow| !before.contains(flow)) {
            self.0.by_flow.entry(*flow).or_default().insert(aor.into());
        }
        for flow in before.iter().filter(|flow| !after.contains(flow)) {
            if let Some(mut users) = self.0.by_flow.get_mut(flow) {
                users.remove(aor);
            }
            self.0.by_flow.remove_if(flow, |_, users| users.is_empty());
        }
        result
    }

    fn take(&self, aor: &str, mut is_out: impl FnMut(&Binding) -> bool) -> Vec<Binding> {
        let mut taken: Vec<Binding> =
            self.update(aor, |bindings| bindings.extract_if(.., |b| is_out(b)).collect());
        sort(&mut taken);
        taken
    }
}

/// Returns the connections that bindings depend on; of datagrams there are none.
fn connections(bindings: &[Binding]) -> Vec<Flow> {
    let flows = bindings.iter().map(|binding| binding.flow);
    flows.filter(|flow| flow.transport.is_reliable()).collect()
}

/// Returns the address that a contact names, if it names one.
fn contact_address(contact: &str) -> Option<SocketAddr> {
    let uri = Uri::parse(contact)?;
    let ip: IpAddr = uri.ip()?;
    let transport = uri.transport().unwrap_or(Transport::Udp);
    Some(SocketAddr::new(ip, uri.port.unwrap_or(transport.default_port())))
}

fn same_uri(a: &str, b: &str) -> bool {
    match (Uri::parse(a), Uri::parse(b)) {
        (Some(a), Some(b)) => a.same_as(&b),
        (None, _) | (_, None) => a == b,
    }
}

fn sort(bindings: &mut [Binding]) {
    bindings.sort_by_cached_key(|binding| (binding.aor.clone(), binding.rank()));
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn finds_by_preference_then_age() {
        let location = Location::new();
        location.bind(Binding { q: 500, ..binding("sip:low@10.0.0.1", 30) });
        location.bind(binding("sip:old@10.0.0.2", 10));
        location.bind(binding("sip:new@10.0.0.3", 20));
        location.bind(binding("sip:twin@10.0.0.4", 20));
        let order =
            ["sip:new@10.0.0.3", "sip:twin@10.0.0.4", "sip:old@10.0.0.2", "sip:low@10.0.0.1"];
        assert_eq!(contacts(&location.find("1001", at(40))), order);
        assert!(location.find("1002", at(40)).is_empty());
    }

    #[test]
    fn the_same_contact_is_bound_once() {
        let location = Location::new();
        location.bind(binding("sip:1001@10.0.0.1:5060;transport=udp", 10));
        location.bind(binding("sip:1001@10.0.0.1:5060;TRANSPORT=UDP", 20));
        location.bind(binding("sip:1001@10.0.0.1:5062", 20));
        assert_eq!(location.all(at(21)).len(), 2);
    }

    #[test]
    fn a_device_is_known_by_its_instance() {
        let device = |contact, instance: &str, reg_id, s| Binding {
            instance: Some(instance.into()),
            reg_id,
            ..binding(contact, s)
        };
        let location = Location::new();
        // The port changed; the device did not.
        location.bind(device("sip:a@10.0.0.1:40000", "<urn:uuid:1>", None, 10));
        location.bind(device("sip:a@10.0.0.1:40001", "<urn:uuid:1>", None, 20));
        assert_eq!(contacts(&location.all(at(21))), ["sip:a@10.0.0.1:40001"]);
        // Two phones in two homes with one private address.
        location.bind(device("sip:a@10.0.0.1:40001", "<urn:uuid:2>", None, 20));
        assert_eq!(location.find("1001", at(21)).len(), 2);
        // Two flows of one device: both kept, the newest rings.
        location.bind(device("sip:a@10.0.0.9:1;ob", "<urn:uuid:3>", Some(1), 30));
        location.bind(device("sip:a@10.0.0.9:2;ob", "<urn:uuid:3>", Some(2), 31));
        assert_eq!(location.all(at(32)).len(), 4);
        let found = location.find("1001", at(32));
        assert_eq!(found.len(), 3);
        assert_eq!(found.first().map(|b| b.reg_id), Some(Some(2)));
    }

    #[test]
    fn what_has_ended_is_not_found_and_is_swept_once() {
        let location = Location::new();
        location.bind(binding("sip:a@10.0.0.1", 0));
        location.bind(binding("sip:b@10.0.0.1", 10));
        assert_eq!(contacts(&location.find("1001", at(3600))), ["sip:b@10.0.0.1"]);
        assert_eq!((location.count(at(0)), location.count(at(3600))), ((1, 2), (1, 1)));
        assert_eq!(location.ends(), [("1001".into(), at(3600))]);
        let sweep = |s| {
            let (ended, next) = location.sweep("1001", at(s));
            (contacts(&ended).join(" "), next)
        };
        assert_eq!(sweep(3600), ("sip:a@10.0.0.1".to_owned(), Some(at(3610))));
        assert_eq!(sweep(3600), (String::new(), Some(at(3610))));
        assert_eq!(sweep(4000), ("sip:b@10.0.0.1".to_owned(), None));
        assert!(location.is_empty() && location.count(at(0)) == (0, 0));
    }

    #[test]
    fn a_closed_connection_takes_its_bindings_along() {
        let location = Location::new();
        let udp = binding("sip:a@10.0.0.1", 0);
        let tcp = Binding { flow: tcp_flow(7), ..binding("sip:b@10.0.0.1", 0) };
        location.bind(udp.clone());
        location.bind(tcp.clone());
        assert!(location.drop_flow(udp.flow).is_empty());
        assert!(location.drop_flow(tcp_flow(8)).is_empty());
        let other = Binding { aor: "1002".into(), ..tcp.clone() };
        location.bind(other.clone());
        // The phone came back over another connection before the first one was known to be closed.
        let moved = Binding { flow: tcp_flow(9), ..binding("sip:c@10.0.0.1", 0) };
        location.bind(Binding { flow: tcp_flow(7), ..moved.clone() });
        location.bind(moved.clone());
        assert_eq!(location.drop_flow(tcp_flow(7)), [tcp, other]);
        assert!(location.drop_flow(tcp_flow(7)).is_empty());
        assert_eq!(location.drop_flow(tcp_flow(9)), [moved]);
        assert_eq!(location.all(at(1)), [udp]);
        assert!(location.0.by_flow.is_empty());
    }

    #[test]
    fn unbinding_names_what_went() {
        let location = Location::new();
        location.bind(binding("sip:a@10.0.0.1", 0));
        location.bind(binding("sip:b@10.0.0.1", 0));
        assert!(location.unbind("1001", "sip:c@10.0.0.1").is_empty());
        assert!(location.unbind("1002", "sip:a@10.0.0.1").is_empty());
        assert_eq!(contacts(&location.unbind("1001", "sip:a@10.0.0.1")), ["sip:a@10.0.0.1"]);
        assert_eq!(contacts(&location.unbind_all("1001")), ["sip:b@10.0.0.1"]);
        assert!(location.is_empty());
    }

    #[test]
    fn a_restart_keeps_what_can_still_be_reached() {
        let listeners = [
            (Transport::Tcp, "127.0.0.1:5070".parse().unwrap()),
            (Transport::Udp, "127.0.0.1:5070".parse().unwrap()),
        ];
        let udp = binding("sip:udp@10.0.0.1", 0);
        let nat = Binding { flow: tcp_flow(7), ..binding("sip:nat@192.168.1.9:5060", 0) };
        let tcp = Binding { flow: tcp_flow(7), ..binding("sip:tcp@10.0.0.1:5064", 0) };
        let mut v6 = binding("sip:v6@[::1]", 0);
        v6.flow.local = "[::1]:5060".parse().unwrap();
        let old = binding("sip:old@10.0.0.1", -100);

        let location = Location::new();
        let lost =
            location.restore([udp, nat, tcp, v6, old], &listeners, &BTreeSet::new(), at(3550));
        let names = ["sip:nat@192.168.1.9:5060", "sip:v6@[::1]", "sip:old@10.0.0.1"];
        assert_eq!(contacts(&lost), names);
        let kept = location.all(at(3550));
        let routes: Vec<_> = kept.iter().map(|b| (b.flow.local, b.flow.remote)).collect();
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(
            routes,
            [
                (addr("127.0.0.1:5070"), addr("10.0.0.1:5064")),
                (addr("127.0.0.1:5070"), addr("10.0.0.1:40000")),
            ]
        );
    }

    #[test]
    fn a_connection_that_still_stands_is_kept() {
        let listeners = [(Transport::Tcp, tcp_flow(7).local)];
        let [stands, ended] =
            [7, 8].map(|n| Binding { flow: tcp_flow(n), ..binding("sip:a@192.168.1.9", 0) });
        let connections = BTreeSet::from([stands.flow]);
        let location = Location::new();
        let lost = location.restore([stands.clone(), ended], &listeners, &connections, at(1));
        assert_eq!((lost.len(), location.all(at(1))), (1, vec![stands]));
    }

    #[test]
    fn the_target_is_the_contact_without_headers() {
        let mut binding = binding("sip:a@10.0.0.1;ob?Route=%3Csip:evil.example%3E", 0);
        binding.path = vec!["<sip:edge.example;lr>".into()];
        let (uri, flow, route) = binding.target();
        assert_eq!(uri, "sip:a@10.0.0.1;ob");
        assert_eq!(flow, binding.flow);
        assert_eq!(route, binding.path);
    }

    #[test]
    fn the_last_second_is_a_second() {
        let binding = binding("sip:a@10.0.0.1", 0);
        assert_eq!(binding.remaining_s(at(0)), 3600);
        assert_eq!(binding.remaining_s(at(0) + Duration::from_millis(1)), 3600);
        assert_eq!(binding.remaining_s(at(3599) + Duration::from_millis(999)), 1);
        assert_eq!(binding.remaining_s(at(3600)), 0);
    }

    /// A binding of 1001 made at `s`, for an hour.
    fn binding(contact: &str, s: i64) -> Binding {
        let remote = "10.0.0.1:40000".parse().unwrap();
        let local = "127.0.0.1:5060".parse().unwrap();
        Binding {
            aor: "1001".into(),
            contact: contact.into(),
            flow: Flow { transport: Transport::Udp, local, remote },
            received: remote,
            path: vec![],
            instance: None,
            reg_id: None,
            q: Q_MAX,
            call_id: "call".into(),
            cseq: 1,
            updated_at: at(s),
            expires_at: at(s + 3600),
            user_agent: None,
            stored_until: at(s + 3600),
        }
    }

    fn tcp_flow(port: u16) -> Flow {
        let remote = SocketAddr::new([10, 0, 0, 1].into(), port);
        Flow { transport: Transport::Tcp, local: "127.0.0.1:5060".parse().unwrap(), remote }
    }

    fn contacts(bindings: &[Binding]) -> Vec<&str> {
        bindings.iter().map(|binding| &*binding.contact).collect()
    }

    fn at(s: i64) -> SystemTime {
        let second = u64::try_from(s + 1_800_000_000).unwrap();
        UNIX_EPOCH + Duration::from_secs(second)
    }
}
