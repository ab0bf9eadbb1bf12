//! REFER: a call is handed to another number of the PSTN.
//!
//! Owns: what may be transferred, and what is told about it (RFC 3515).
//! Never: calls the new number; nobody would hear.

use super::{
    super::agent::Asked,
    ALLOW, FarEnd, GATEWAY, Rule, Stage, Step, Twilio,
    admission::{Refused, is_e164},
    numbers::Then,
};
use crate::sip::{HeaderName, Message, Method, NameAddr, Scheme};
use std::time::Instant;

impl Twilio {
    /// Takes a REFER inside a call.
    pub(super) fn take_refer(&mut self, index: usize, asked: &Asked, now: Instant) {
        let talk = self.calls[index].talk.clone();
        if self.calls[index].stage != Stage::Up {
            return self.agent.refuse(asked, 491, Some(&talk), now);
        }
        if let Err(refused) = self.check_refer(index, &asked.message) {
            return self.refuse(asked, Some(&talk), refused, now);
        }
        let mut reply = self.agent.reply(asked, (202, "Accepted"), Some(&talk));
        reply.header(HeaderName::Contact, self.contact(&self.calls[index].party));
        reply.header(HeaderName::Allow, ALLOW).header(HeaderName::Server, GATEWAY);
        self.agent.respond(asked.tx, 202, reply.finish(), now);
        self.notify(index, "SIP/2.0 100 Trying\r\n", "active;expires=60", now);
        let timing = self.setup.timing;
        let number = self.calls[index].number;
        self.plan(now + timing.post_dial + timing.ring, number, Step::Transferred);
    }

    fn check_refer(&self, index: usize, refer: &Message) -> Result<(), Refused> {
        let target = refer.header_str(HeaderName::ReferTo).unwrap_or_default();
        if let FarEnd::Answers { then: Then::RefusesTransfer { error }, .. } =
            self.calls[index].far_end
        {
            let error = Some(error);
            return Err(Refused { status: 403, reason: "", error, because: None });
        }
        if !self.setup.policy.transfers {
            let evidence = format!("REFER to {target}");
            return Err(Refused::by(Rule::TransferEnabled, 403, evidence));
        }
        let address = NameAddr::parse(target.as_bytes());
        let uri = address.as_ref().and_then(NameAddr::parsed_uri);
        let is_good = uri.is_some_and(|uri| {
            let number: String =
                uri.user.unwrap_or_default().chars().filter(|c| *c != '-').collect();
            let is_here = match uri.scheme {
                Scheme::Tel => true,
                Scheme::Sip => self.setup.is_termination(uri.host),
                Scheme::Sips | Scheme::Urn | Scheme::Other => false,
            };
            let is_attended = uri.headers.to_ascii_lowercase().contains("replaces=");
            is_here && is_e164(&number) && !is_attended
        });
        if is_good {
            Ok(())
        } else {
            Err(Refused::by(Rule::TransferTarget, 400, format!("REFER to {target}")))
        }
    }

    /// The other number has answered; the PBX is not needed any more.
    pub(super) fn transferred(&mut self, index: usize, now: Instant) {
        self.notify(index, "SIP/2.0 200 OK\r\n", "terminated;reason=noresource", now);
        // A PBX that does not hang up by itself is left soon after.
        let number = self.calls[index].number;
        self.plan(now + self.setup.timing.ring, number, Step::HangUp);
    }

    fn notify(&mut self, index: usize, fragment: &str, state: &str, now: Instant) {
        let contact = self.contact(&self.calls[index].party);
        let call = &mut self.calls[index];
        let (mut notify, branch) = call.talk.request(Method::Notify, &mut self.agent);
        notify
            .header(HeaderName::Event, "refer")
            .header(HeaderName::SubscriptionState, state)
            .header(HeaderName::Contact, contact)
            .header(HeaderName::UserAgent, GATEWAY);
        let flow = call.talk.flow;
        let bytes = notify.body("message/sipfrag;version=2.0", fragment.as_bytes());
        self.agent.request(Method::Notify, &branch, bytes, flow, now);
    }
}
