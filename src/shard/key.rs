//! Which shard a message belongs to, found without any table.
//!
//! Owns: the one rule that ingress and every shard agree on.
//! Never: trusts an identifier whose MAC is not ours; a peer cannot choose its shard.

use crate::{
    ids::{MintKey, ShardId},
    sip::Message,
};

/// Returns the one shard that may handle the message; `shards` never changes while we run.
///
/// A response comes back with the branch that we minted, a request inside a dialog with the tag that
/// we minted: both name their shard, the way a QUIC connection ID names its server. Everything
/// else goes by its Call-ID, so that a retransmission, a CANCEL and an ACK follow their INVITE from
/// whatever source they come.
pub fn shard_of(message: &Message, key: &MintKey, shards: u8) -> ShardId {
    let minted = if message.is_request() { message.to_tag() } else { Some(message.branch()) };
    match minted.and_then(|minted| key.owner(minted)) {
        Some(owner) if owner.0 < shards => owner,
        Some(_) | None => by_call_id(message.call_id(), key, shards),
    }
}

fn by_call_id(call_id: &str, key: &MintKey, shards: u8) -> ShardId {
    let index = key.hash(call_id).checked_rem(u64::from(shards)).unwrap_or(0);
    ShardId(u8::try_from(index).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Entropy, Mint};
    use bytes::Bytes;

    const SHARDS: u8 = 8;

    #[test]
    fn what_we_minted_comes_home() {
        let key = key();
        for shard in (0..SHARDS).map(ShardId) {
            let mut mint = Mint::new(shard, key, Entropy::from_u64(9));
            let bye = request("BYE", "z9hG4bKtheirs", Some(&mint.tag()), "x@y");
            assert_eq!(shard_of(&bye, &key, SHARDS), shard, "their request with our tag");
            let ok = response(&mint.branch(), "x@y");
            assert_eq!(shard_of(&ok, &key, SHARDS), shard, "the response to our request");
        }
    }

    #[test]
    fn a_foreign_call_stays_together_and_calls_spread() {
        let key = key();
        let mut seen = [false; SHARDS as usize];
        for n in 0..100 {
            let call_id = format!("{n}@atlanta.example.com");
            let of = |method| shard_of(&request(method, "z9hG4bK1", None, &call_id), &key, SHARDS);
            assert_eq!(of("INVITE"), of("CANCEL"));
            seen[usize::from(of("INVITE").0)] = true;
        }
        assert_eq!(seen, [true; SHARDS as usize]);
    }

    #[test]
    fn a_forged_or_outdated_shard_is_not_an_index() {
        let key = key();
        let by_call_id = shard_of(&request("BYE", "z9hG4bK1", None, "z"), &key, SHARDS);
        for tag in [
            "ff000000000000feed00000000".to_owned(),
            Mint::new(ShardId(200), key, Entropy::from_u64(1)).tag(),
        ] {
            let forged = request("BYE", "z9hG4bK1", Some(&tag), "z");
            assert_eq!(shard_of(&forged, &key, SHARDS), by_call_id, "{tag}");
        }
    }

    fn key() -> MintKey {
        MintKey::draw(&mut Entropy::from_u64(6))
    }

    fn request(method: &str, branch: &str, to_tag: Option<&str>, call_id: &str) -> Message {
        let to_tag = to_tag.map(|tag| format!(";tag={tag}")).unwrap_or_default();
        parse(format!(
            "{method} sip:bob@example.com SIP/2.0\r\n\
             Via: SIP/2.0/UDP 192.0.2.1:5060;branch={branch}\r\n\
             From: <sip:alice@example.com>;tag=a\r\nTo: <sip:bob@example.com>{to_tag}\r\n\
             Call-ID: {call_id}\r\nCSeq: 1 {method}\r\nMax-Forwards: 70\r\n\
             Content-Length: 0\r\n\r\n"
        ))
    }

    fn response(branch: &str, call_id: &str) -> Message {
        parse(format!(
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch={branch}\r\n\
             From: <sip:alice@example.com>;tag=a\r\nTo: <sip:bob@example.com>;tag=b\r\n\
             Call-ID: {call_id}\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
        ))
    }

    fn parse(text: String) -> Message {
        Message::parse(Bytes::from(text)).unwrap()
    }
}
