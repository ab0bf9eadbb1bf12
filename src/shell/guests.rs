//! Connections that peers have opened: who must make room for whom, and who stays without being of any use.
//!
//! Owns: their order by age and source, and what was last heard of whether anybody known uses one.
//! Never: knows what proves a connection; whoever asks does.
//!
//! A connection is proven while a registration, a call or a trunk uses it; that is asked when it counts, never
//! for each message. Proven ones stay. Of the others the oldest goes where there are too many: of a source that
//! has more than its share, else of the source that has most. Who connects is the last to go.

use crate::{ids::Flow, network::source};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// One source may have a quarter of all that are not proven.
const SHARES: usize = 4;
/// How many go at once, at most, and of how many one goes: to look through all calls for each would be dear.
const PICKED_MAX: usize = 32;
const PICKED_OF: usize = 64;
/// How long a connection that is not proven stays while we have nothing to say on it. RFC 3261 18 wants as long
/// as a transaction may take, for an INVITE at a proxy that is three minutes. Keep-alives (RFC 5626 4.4.1) do not
/// prolong it: anybody can send them. Whoever asks now and then and is closed connects anew.
pub(super) const SILENCE: Duration = Duration::from_secs(300);
/// Each connection is looked at once in a minute, a twelfth of them at a time.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOKS: usize = 12;

/// The connections that peers have opened.
#[derive(Debug, Default)]
pub(super) struct Guests {
    /// How many there may be.
    max: usize,
    last: u64,
    guests: BTreeMap<u64, Guest>,
    by_flow: BTreeMap<Flow, u64>,
    /// Those that are not known to be proven, by source, the oldest first.
    unproven: BTreeMap<IpAddr, BTreeSet<u64>>,
    /// How many of these a source has, and its oldest: whoever must make room is the last.
    ranks: BTreeSet<(usize, Reverse<u64>, IpAddr)>,
    /// The last one that was looked at, and when the next ones are.
    looked_at: u64,
    looks_at: Option<Instant>,
}

#[derive(Debug)]
struct Guest {
    flow: Flow,
    is_proven: bool,
    /// Since when we have had nothing to say.
    since: Instant,
    /// Ends the connection where it is dropped.
    end: oneshot::Sender<()>,
}

impl Guests {
    /// Says how many there may be, not counting those that are proven. Who is too many goes when the next one
    /// comes.
    pub(super) fn grant(&mut self, max: usize) {
        self.max = max;
    }

    /// Takes one in. It ends where `end` is dropped.
    pub(super) fn came(&mut self, flow: Flow, end: oneshot::Sender<()>, now: Instant) {
        // The peer has closed the one before, and we have not heard of it yet.
        if let Some(before) = self.by_flow.get(&flow).copied() {
            self.remove(before);
        }
        self.last += 1;
        self.by_flow.insert(flow, self.last);
        self.guests.insert(self.last, Guest { flow, is_proven: false, since: now, end });
        self.suspect(self.last, flow);
        self.looks_at.get_or_insert(now + LOOK_EVERY);
    }

    /// One has ended, unless another with the same addresses has taken its place.
    pub(super) fn left(&mut self, flow: Flow) {
        let serial = self.by_flow.get(&flow).copied();
        let guest = serial.and_then(|serial| self.guests.get(&serial));
        if let (Some(serial), true) = (serial, guest.is_some_and(|guest| guest.end.is_closed())) {
            self.remove(serial);
        }
    }

    /// Returns some of which those who are not proven must go, so that there is room for `newcomer`; nobody where
    /// there is. They wait for [`Self::judge`].
    pub(super) fn pick(&mut self, newcomer: Flow) -> Vec<Flow> {
        let ip = source(newcomer.remote.ip());
        let of_source = self.unproven.get(&ip).map_or(0, BTreeSet::len);
        let (ip, of) = if of_source > self.max / SHARES {
            (Some(ip), of_source)
        } else if self.guests.len() > self.max {
            (None, self.ranks.iter().map(|(count, ..)| count).sum())
        } else {
            return vec![];
        };
        let count = (of / PICKED_OF).clamp(1, PICKED_MAX);
        (0..count).map_while(|_| self.pick_one(ip)).collect()
    }

    fn pick_one(&mut self, ip: Option<IpAddr>) -> Option<Flow> {
        let ip = ip.or_else(|| self.ranks.last().map(|(.., ip)| *ip))?;
        let serial = *self.unproven.get(&ip)?.first()?;
        let flow = self.guests.get(&serial)?.flow;
        self.trust(serial, flow);
        Some(flow)
    }

    /// Returns whom to ask about, where it is time: those who were proven, and those of whom nobody knew anything
    /// for too long. `has_spoken` tells, of each, whether anything was sent on it since it was last asked.
    pub(super) fn visit(
        &mut self,
        now: Instant,
        mut has_spoken: impl FnMut(Flow) -> bool,
    ) -> Vec<Flow> {
        if self.looks_at.is_none_or(|at| now < at) {
            return vec![];
        }
        self.looks_at = (!self.guests.is_empty()).then(|| now + LOOK_EVERY);
        let mut left = self.guests.len() / LOOKS + 1;
        let mut visited = vec![];
        for (serial, guest) in self.guests.range_mut(self.looked_at + 1..).take(left) {
            (self.looked_at, left) = (*serial, left - 1);
            if has_spoken(guest.flow) {
                guest.since = now;
            }
            let is_silent = now.saturating_duration_since(guest.since) >= SILENCE;
            if guest.is_proven || is_silent {
                visited.push(guest.flow);
            }
        }
        if left > 0 {
            // That was the last one; the round begins anew.
            self.looked_at = 0;
        }
        visited
    }

    /// Learns which of `asked` are proven. Who is not, and was not, goes; who was has time to become it again.
    /// Returns how many go.
    pub(super) fn judge(&mut self, asked: &[Flow], proven: &BTreeSet<Flow>, now: Instant) -> usize {
        let before = self.guests.len();
        for flow in asked.iter().copied() {
            let Some(serial) = self.by_flow.get(&flow).copied() else { continue };
            let Some(guest) = self.guests.get_mut(&serial) else { continue };
            let was_proven = std::mem::replace(&mut guest.is_proven, proven.contains(&flow));
            match (was_proven, guest.is_proven) {
                (true, true) => {}
                (false, true) => self.trust(serial, flow),
                (true, false) => {
                    guest.since = now;
                    self.suspect(serial, flow);
                }
                (false, false) => self.remove(serial),
            }
        }
        before - self.guests.len()
    }

    /// Returns when [`Self::visit`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.looks_at
    }

    fn remove(&mut self, serial: u64) {
        let Some(guest) = self.guests.remove(&serial) else { return };
        self.by_flow.remove(&guest.flow);
        self.trust(serial, guest.flow);
    }

    /// Counts one among those who are not proven.
    fn suspect(&mut self, serial: u64, flow: Flow) {
        self.rank(source(flow.remote.ip()), |serials| _ = serials.insert(serial));
    }

    /// Counts one among them no more.
    fn trust(&mut self, serial: u64, flow: Flow) {
        self.rank(source(flow.remote.ip()), |serials| _ = serials.remove(&serial));
    }

    fn rank(&mut self, ip: IpAddr, change: impl FnOnce(&mut BTreeSet<u64>)) {
        let serials = self.unproven.entry(ip).or_default();
        let rank = |serials: &BTreeSet<u64>| {
            serials.first().map(|oldest| (serials.len(), Reverse(*oldest), ip))
        };
        let before = rank(serials);
        change(serials);
        let after = rank(serials);
        if let Some(before) = before {
            self.ranks.remove(&before);
        }
        match after {
            Some(after) => _ = self.ranks.insert(after),
            None => _ = self.unproven.remove(&ip),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Transport;
    use std::net::Ipv4Addr;

    /// A house whose guests are known by number: the first byte of the address is the source.
    struct House {
        guests: Guests,
        ends: BTreeMap<Flow, oneshot::Receiver<()>>,
        proven: BTreeSet<Flow>,
        spoken: BTreeSet<Flow>,
        now: Instant,
    }

    #[expect(clippy::disallowed_methods, reason = "some point to count from")]
    fn house(max: usize) -> House {
        let mut guests = Guests::default();
        guests.grant(max);
        let now = Instant::now();
        House {
            guests,
            ends: BTreeMap::new(),
            proven: BTreeSet::new(),
            spoken: BTreeSet::new(),
            now,
        }
    }

    fn flow(source: u16, port: u16) -> Flow {
        let [a, b] = source.to_be_bytes();
        let remote = (Ipv4Addr::new(10, a, b, 1), port).into();
        Flow { transport: Transport::Tcp, local: ([127, 0, 0, 1], 5060).into(), remote }
    }

    impl House {
        fn come(&mut self, flow: Flow) {
            let (end, over) = oneshot::channel();
            self.guests.came(flow, end, self.now);
            self.ends.insert(flow, over);
            loop {
                let picked = self.guests.pick(flow);
                if picked.is_empty() {
                    break;
                }
                self.guests.judge(&picked, &self.proven, self.now);
            }
            self.close();
        }

        /// Those whose end has come say that they are gone.
        fn close(&mut self) {
            use oneshot::error::TryRecvError::Closed;
            let over = |end: &mut oneshot::Receiver<()>| end.try_recv() == Err(Closed);
            let gone = self.ends.iter_mut().filter_map(|(flow, end)| over(end).then_some(*flow));
            for flow in gone.collect::<Vec<_>>() {
                self.ends.remove(&flow);
                self.guests.left(flow);
            }
        }

        fn pass(&mut self, time: Duration) {
            let until = self.now + time;
            while let Some(at) = self.guests.poll_timeout().filter(|at| *at <= until) {
                self.now = at;
                let spoken = &mut self.spoken;
                let visited = self.guests.visit(at, |flow| spoken.remove(&flow));
                self.guests.judge(&visited, &self.proven, at);
                self.close();
            }
            self.now = until;
        }

        fn has(&self, flow: Flow) -> bool {
            self.ends.contains_key(&flow)
        }

        fn of(&self, source: u16) -> usize {
            let ip = flow(source, 0).remote.ip();
            self.ends.keys().filter(|flow| flow.remote.ip() == ip).count()
        }
    }

    #[test]
    fn the_source_that_has_most_makes_room() {
        let mut house = house(400);
        let phone = flow(0, 1);
        house.proven.insert(phone);
        house.come(phone);
        for attacker in 1..=4 {
            (0..100).for_each(|port| house.come(flow(attacker, port)));
        }
        // One more than there may be: somebody else's goes, not the phone's, which is older, and not the newcomer.
        house.come(flow(5, 1));
        assert!(house.has(phone) && house.has(flow(5, 1)));
        assert!((390..=400).contains(&house.ends.len()), "{}", house.ends.len());
        // However many come, the phones stay, and so does whoever is new.
        for port in 100..2000 {
            house.come(flow(1 + port % 4, port));
            assert!(house.has(flow(1 + port % 4, port)));
        }
        assert!(house.has(phone) && house.has(flow(5, 1)));
        assert!(house.ends.len() <= 400 && house.of(1) <= 100);
    }

    #[test]
    fn a_source_has_a_share_of_those_that_are_not_proven() {
        let mut house = house(400);
        for port in 0..150 {
            house.come(flow(1, port));
        }
        assert_eq!(house.of(1), 100);
        assert!(!house.has(flow(1, 0)) && house.has(flow(1, 149)), "the oldest goes");
        // Phones behind one NAT.
        for port in 0..300 {
            house.proven.insert(flow(2, port));
            house.come(flow(2, port));
        }
        assert_eq!(house.of(2), 300);
        assert!(house.ends.len() <= 400);
    }

    #[test]
    fn many_sources_with_one_each_make_room_in_their_order() {
        let mut house = house(64);
        for source in 0..100 {
            house.come(flow(source, 1));
        }
        let left: Vec<_> = (0..100).filter(|source| house.of(*source) > 0).collect();
        assert_eq!(left, (36..100).collect::<Vec<_>>());
    }

    #[test]
    fn where_all_are_proven_the_newcomer_goes_unless_it_is_proven_as_well() {
        let mut house = house(8);
        for port in 0..8 {
            house.proven.insert(flow(1, port));
            house.come(flow(1, port));
        }
        house.come(flow(2, 1));
        assert!(!house.has(flow(2, 1)));
        assert_eq!(house.of(1), 8);
        house.proven.insert(flow(3, 1));
        house.come(flow(3, 1));
        assert!(house.has(flow(3, 1)), "a trunk");
    }

    #[test]
    fn who_is_of_no_use_goes_after_a_while() {
        let mut house = house(400);
        let (phone, asks, idle) = (flow(1, 1), flow(1, 2), flow(1, 3));
        house.proven.insert(phone);
        [phone, asks, idle].into_iter().for_each(|flow| house.come(flow));
        for _ in 0..4 {
            house.pass(Duration::from_secs(70));
            house.spoken.insert(asks);
        }
        assert!(house.has(idle), "after 280 s");
        house.pass(Duration::from_secs(120));
        assert!(!house.has(idle) && house.has(asks) && house.has(phone));
        house.pass(SILENCE * 2);
        assert!(!house.has(asks) && house.has(phone));
        // Its registration ends: from then on it is as any other.
        house.proven.clear();
        house.pass(SILENCE);
        assert!(house.has(phone));
        house.pass(Duration::from_secs(120));
        assert!(!house.has(phone));
        house.pass(Duration::from_secs(60));
        assert_eq!(house.guests.poll_timeout(), None, "there is nobody to look at");
    }

    #[test]
    fn nothing_is_kept_of_who_has_left() {
        let mut house = house(400);
        for round in 0..3 {
            for port in 0..300 {
                house.come(flow(port % 7, port));
            }
            if round == 1 {
                // The same addresses again, before the end of the former was heard of.
                continue;
            }
            house.ends.values_mut().for_each(oneshot::Receiver::close);
            house.ends.keys().copied().for_each(|flow| house.guests.left(flow));
            house.ends.clear();
            let Guests { guests, by_flow, unproven, ranks, .. } = &house.guests;
            assert!(guests.is_empty() && by_flow.is_empty(), "{guests:?}");
            assert!(unproven.is_empty() && ranks.is_empty(), "{ranks:?}");
        }
    }
}
