//! How a trunk's calls find their way, and another when one fails.
//!
//! Owns: the checked types of `uri`, `address`, `proxy`, `failover` and `retry` together.
//! Never: knows which address answers.

use super::checked::{Trunk, TrunkUri};
use crate::{
    dialplan::E164,
    trunk::routes::{Edge, Place},
};
use std::time::Duration;

/// How a trunk's calls find another way when one fails.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Routing {
    /// An outbound proxy: where requests go, and their Route (RFC 3261 8.1.2).
    pub proxy: Option<TrunkUri>,
    /// How long an INVITE may go without any response at all.
    pub failover: Duration,
    /// Caller IDs that are tried after the trunk's own, in this order.
    pub caller_ids: Vec<E164>,
    /// After what there is another attempt, and where.
    pub retry: Retry,
}

/// After what there is another attempt, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Retry {
    /// After this.
    pub on: Vec<RetryOn>,
    /// By changing this.
    pub next: Vec<RetryNext>,
}

/// What another attempt is made after.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RetryOn {
    /// No response, or a request that could not be sent.
    Timeout,
    /// A final response between these two, 300 to 699.
    Status(u16, u16),
}

/// What the next attempt changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RetryNext {
    /// The number presented, where the carrier refuses it.
    CallerId,
    /// The edge: the next of the trunk's URIs.
    Uri,
    /// The trunk: the next target of the rule.
    Trunk,
}

impl Retry {
    /// Returns whether a final response is to be followed by another attempt.
    pub fn is_on(&self, status: u16) -> bool {
        self.on.iter().any(|on| match on {
            RetryOn::Timeout => false,
            RetryOn::Status(first, last) => (*first..=*last).contains(&status),
        })
    }
}

impl Default for Retry {
    fn default() -> Self {
        let on = [RetryOn::Timeout, RetryOn::Status(408, 408), RetryOn::Status(500, 504)];
        let next = [RetryNext::CallerId, RetryNext::Uri, RetryNext::Trunk];
        Self { on: on.into(), next: next.into() }
    }
}

impl Trunk {
    /// Returns the edges, in the order in which they are tried.
    pub fn edges(&self) -> Vec<Edge> {
        let edge = |uri: &TrunkUri| {
            let to = self.routing.proxy.as_ref().unwrap_or(uri);
            let (host, port) = match self.address {
                Some(address) => (address.ip().to_string().into(), Some(address.port())),
                None => (to.host.trim_matches(['[', ']']).into(), to.port),
            };
            let place = Place { host, port, transport: self.transport };
            Edge { host: uri.host.clone(), port: uri.port, place }
        };
        self.uris.iter().map(edge).collect()
    }
}
