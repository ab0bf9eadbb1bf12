//! Where SIP servers are: what DNS says of a name, and the order in which it is tried (RFC 3263, 2782).
//!
//! Owns: priorities, weights, and the random choice among equals.
//! Never: asks DNS, or knows whether anybody answers there.

use crate::ids::{Entropy, Flow};
use std::time::Duration;

/// One server of a name: an SRV record's target, or the name itself where there is none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// The lowest is tried first (RFC 2782).
    pub priority: u16,
    /// Its share among those of the same priority.
    pub weight: u16,
    /// Its addresses, and how each is reached.
    pub flows: Vec<Flow>,
}

/// What is known of a name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Located {
    /// In no particular order; none: the name leads nowhere.
    pub servers: Vec<Server>,
    /// How long this holds; `None`: for good, as a literal address does.
    pub ttl: Option<Duration>,
}

impl Located {
    /// Returns what a name without services means: addresses that are all alike.
    pub fn alike(flows: Vec<Flow>, ttl: Option<Duration>) -> Self {
        let servers = match flows.is_empty() {
            true => vec![],
            false => vec![Server { priority: 0, weight: 0, flows }],
        };
        Self { servers, ttl }
    }

    /// Returns whether it leads nowhere.
    pub fn is_empty(&self) -> bool {
        self.servers.iter().all(|server| server.flows.is_empty())
    }

    /// Returns every address, in no particular order.
    pub fn flows(&self) -> impl Iterator<Item = Flow> {
        self.servers.iter().flat_map(|server| server.flows.iter().copied())
    }

    /// Draws the order for one request: by priority, among equals by weight (RFC 2782), and each
    /// server's addresses from a random one on, so that many requests are spread over all.
    pub fn order(&self, entropy: &mut Entropy) -> Vec<Flow> {
        if let [only] = self.servers.as_slice()
            && let [flow] = only.flows.as_slice()
        {
            return vec![*flow];
        }
        let mut servers: Vec<&Server> = self.servers.iter().collect();
        // RFC 2782: those of weight 0 come first in their priority, so that they are drawn at times.
        servers.sort_by_key(|server| (server.priority, server.weight));
        let mut order = vec![];
        while let Some(first) = servers.first() {
            let priority = first.priority;
            let equals = servers.iter().take_while(|server| server.priority == priority);
            let drawn = draw(equals.map(|server| server.weight), entropy);
            let server = servers.remove(drawn);
            let from = match server.flows.len() {
                0 | 1 => 0,
                // Below the length, which is a usize.
                len => entropy.below(len as u64) as usize,
            };
            let (before, after) = server.flows.split_at(from);
            for flow in after.iter().chain(before) {
                if !order.contains(flow) {
                    order.push(*flow);
                }
            }
        }
        order
    }
}

/// Returns the index of the weight whose running sum first reaches a number drawn up to their total.
fn draw(weights: impl Iterator<Item = u16> + Clone, entropy: &mut Entropy) -> usize {
    if weights.clone().nth(1).is_none() {
        return 0;
    }
    let total: u64 = weights.clone().map(u64::from).sum();
    let drawn = entropy.below(total.saturating_add(1));
    let mut sum = 0;
    let reaches = |weight: u16| {
        sum += u64::from(weight);
        sum >= drawn
    };
    weights.map(reaches).position(|is_it| is_it).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Transport;
    use std::collections::BTreeMap;

    fn flow(host: u8) -> Flow {
        let local = "10.0.0.1:5060".parse().unwrap();
        Flow { transport: Transport::Udp, local, remote: ([192, 0, 2, host], 5060).into() }
    }

    fn server(priority: u16, weight: u16, hosts: &[u8]) -> Server {
        Server { priority, weight, flows: hosts.iter().copied().map(flow).collect() }
    }

    /// How often each host came first in so many draws.
    fn firsts(located: &Located, draws: u32) -> BTreeMap<u8, u32> {
        let mut entropy = Entropy::from_u64(1);
        let mut firsts = BTreeMap::new();
        for _ in 0..draws {
            let first = located.order(&mut entropy)[0].remote;
            let host = first.to_string().split(['.', ':']).nth(3).unwrap().parse().unwrap();
            *firsts.entry(host).or_default() += 1;
        }
        firsts
    }

    #[test]
    fn priorities_come_in_order_and_nothing_is_left_out() {
        let servers = vec![server(20, 5, &[9]), server(10, 0, &[1, 2]), server(10, 9, &[3, 1])];
        let located = Located { servers, ttl: None };
        let mut entropy = Entropy::from_u64(7);
        for _ in 0..100 {
            let mut order = located.order(&mut entropy);
            assert_eq!(order.pop(), Some(flow(9)));
            order.sort();
            assert_eq!(order, [flow(1), flow(2), flow(3)], "each address once");
        }
    }

    #[test]
    fn equals_are_drawn_by_weight() {
        let servers = vec![server(1, 30, &[1]), server(1, 10, &[2]), server(1, 0, &[3])];
        let found = firsts(&Located { servers, ttl: None }, 4100);
        let [a, b, c] = [1, 2, 3].map(|host| found[&host]);
        assert!((2800..3200).contains(&a), "30 of 41: {found:?}");
        assert!((850..1150).contains(&b), "10 of 41: {found:?}");
        assert!((50..170).contains(&c), "1 of 41: {found:?}");
    }

    #[test]
    fn addresses_of_one_name_are_spread() {
        let flows = [1, 2, 3, 4].map(flow).to_vec();
        let found = firsts(&Located::alike(flows, None), 4000);
        assert!(found.values().all(|n| (900..1100).contains(n)), "{found:?}");
    }

    #[test]
    fn nowhere_is_nowhere() {
        assert!(Located::default().is_empty() && Located::alike(vec![], None).is_empty());
        assert_eq!(Located::default().order(&mut Entropy::from_u64(1)), []);
    }
}
