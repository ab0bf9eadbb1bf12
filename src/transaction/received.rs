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
