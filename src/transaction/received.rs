//! Which requests a layer has received, for whoever must know without having them.
//!
//! Owns: the question whether a request is new, and what another layer with the same key knows it by.
//! Never: changes a transaction.

use super::{layer::Layer, matching::ServerKey, server::Server};
use crate::{
    ids::Digest,
    sip::{Message, Method},
};

impl Layer {
    /// Returns whether a request belongs to a transaction that is there: it is a copy of its
    /// request, its ACK or its CANCEL.
    pub fn knows(&self, request: &Message) -> bool {
        self.keys_of(request).into_iter().any(|key| self.servers.find(key).is_some())
    }

    /// Returns the digest of the transaction that a request makes.
    pub fn digest_of(&self, request: &Message) -> Digest {
        ServerKey::of(request, self.mint.key()).digest()
    }

    /// Returns under which digests another layer with the same key would know the request.
    pub fn digests_of(&self, request: &Message) -> [Digest; 2] {
        self.keys_of(request).map(ServerKey::digest)
    }

    /// Returns under which digest a request would be known, other than an ACK, before all of it is read: by its
    /// topmost Via and its method. `None` where that says too little, as of a client of RFC 2543.
    pub fn digest_of_via(
        &self,
        branch: &str,
        sent_by: (&str, Option<u16>),
        method: Method,
    ) -> Option<Digest> {
        let key = ServerKey::of_via(branch, sent_by, method.as_str(), self.mint.key());
        key.map(ServerKey::digest)
    }

    /// Returns whether a request that has this digest was received, and is not forgotten yet.
    pub fn has_received(&self, digest: Digest) -> bool {
        self.servers.find(ServerKey::from_digest(digest)).is_some()
    }

    /// Returns the digests of all requests that were received, and not forgotten yet.
    pub fn digests(&self) -> Vec<Digest> {
        self.servers.sorted().map(Server::digest).collect()
    }

    /// Its own key, and that of the INVITE where it is a CANCEL.
    fn keys_of(&self, request: &Message) -> [ServerKey; 2] {
        let key = self.mint.key();
        let own = ServerKey::of(request, key);
        let is_cancel = request.method() == Method::Cancel;
        [own, if is_cancel { ServerKey::of_cancelled(request, key) } else { own }]
    }
}
