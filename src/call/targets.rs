//! From a dialplan's target to the legs that ring: a user's contacts, a trunk, a URI.
//!
//! Owns: which legs a target makes, and why it makes none.
//! Never: sends an INVITE; a leg does once its port and address are there.

use super::{
    Call, Leg,
    headers::{self, Identity},
    hunt::own_number,
    leaving::{Asker, charge},
    leg::{By, Origin, Refused},
    outgoing::InviteSpec,
    profile::Profile,
    program::GOTO_MAX,
    wire::{Ask, Owner, ResolveFor, Wire},
};
use crate::{
    config::User,
    dialplan::{Decision, Dial, E164, Query, Step, Target},
    ids::{Flow, Transport},
    observe::plain,
    sip::{Message, Scheme, Uri},
    trunk::identity::Inbound,
};
use std::sync::Arc;

/// How much of a phone's own display name is shown to others.
const NAME_CHARS_MAX: usize = 64;

impl Call {
    /// Makes the legs of one target; none of them has sent anything yet.
    pub(super) fn legs_for(
        &mut self,
        target: &Target,
        dial: &Arc<Dial>,
        asker: &Asker,
        wire: &mut Wire<'_>,
    ) -> Result<Vec<Leg>, Refused> {
        match target {
            Target::User(name) => self.legs_of_user(name, wire),
            Target::Trunk { trunk, number, .. } => {
                let outbound = self.outbound((target, dial), asker, wire)?;
                if !self.pass_gate((target, dial), &outbound, asker, wire)? {
                    return Ok(vec![]);
                }
                let leg = self.leg_of_trunk(trunk, number, &outbound, wire)?;
                charge(leg.id(), (trunk, asker), &outbound, wire);
                Ok(vec![leg])
            }
            Target::Uri(uri) => self.leg_of_uri(uri, wire).map(|leg| vec![leg]),
        }
    }

    fn legs_of_user(&self, name: &str, wire: &mut Wire<'_>) -> Result<Vec<Leg>, Refused> {
        let Some(user) = self.config.users.get(name).cloned() else {
            return Err(Refused::ours(By::Us, 404, "No Such User"));
        };
        let bindings = wire.location.find(name, wire.wall);
        if bindings.is_empty() {
            return Err(Refused::ours(By::Us, 480, "Not Registered"));
        }
        let Some(invite) = self.caller_invite() else { return Ok(vec![]) };
        let legs = bindings.iter().map(|binding| {
            let (uri, flow, routes) = binding.target();
            let config = &self.config;
            let spec = headers::to_phone(&self.identity, &user, (uri, routes), &invite, config);
            self.new_leg(
                (&*user.name).into(),
                Profile::phone(&user, config),
                spec,
                Some(flow),
                wire,
            )
        });
        Ok(legs.collect())
    }

    fn leg_of_uri(&self, uri: &str, wire: &mut Wire<'_>) -> Result<Leg, Refused> {
        let parsed = Uri::parse(uri).filter(|uri| uri.scheme == Scheme::Sip);
        let Some(parsed) = parsed else {
            return Err(Refused::ours(By::Us, 416, "Unsupported URI Scheme"));
        };
        let Some(invite) = self.caller_invite() else {
            return Err(Refused::ours(By::Us, 480, "Caller Gone"));
        };
        let spec = headers::to_uri(&self.identity, uri, &invite, &self.config);
        let name = parsed.user.unwrap_or(parsed.host).into();
        let profile = Profile::elsewhere(&self.config);
        let leg = self.new_leg(name, profile, spec, None, wire);
        wire.ask(Ask::Resolve {
            token: ResolveFor::Leg(leg.owner),
            host: parsed.host.trim_matches(['[', ']']).into(),
            port: parsed.port,
            transport: parsed.transport().unwrap_or(Transport::Udp),
        });
        Ok(leg)
    }

    /// Makes the legs of a redirection's contact: numbers of ours by the dialplan of the redirecting
    /// user, other addresses directly.
    pub(super) fn legs_for_redirect(
        &mut self,
        contact: &str,
        user: &Arc<User>,
        wire: &mut Wire<'_>,
    ) -> Vec<Leg> {
        let Some(uri) = Uri::parse(contact) else { return vec![] };
        let is_ours = |host: &str| self.is_ours(host);
        let Some(number) = own_number(&uri, is_ours) else {
            return self.leg_of_uri(contact, wire).into_iter().collect();
        };
        let Some(dial) = self.dial_for(&user.context, number, wire) else { return vec![] };
        let group = dial.groups.first().map_or(&[][..], Vec::as_slice);
        let asker = Asker::new(Some(user.clone()));
        group
            .iter()
            .filter_map(|target| self.legs_for(target, &dial, &asker, wire).ok())
            .flatten()
            .collect()
    }

    /// Returns whom a number's rule calls first, behind however many `goto`s. A rule that begins with
    /// anything else is for the one who dials, not for the one who is sent there.
    fn dial_for(&self, context: &str, number: &str, wire: &Wire<'_>) -> Option<Arc<Dial>> {
        let at = self.config.node.timezone.local(wire.wall);
        let (mut context, mut number): (Box<str>, Box<str>) = (context.into(), number.into());
        for _ in 0..GOTO_MAX {
            let from = &self.identity.user;
            let query = Query { context: &context, from, dialled: &number, at };
            let Decision::Matched { steps, .. } = self.config.dialplan.route(&query) else {
                return None;
            };
            match steps.into_iter().next()? {
                Step::Dial(dial) => return Some(dial),
                Step::Goto { context: to, number: dialled } => (context, number) = (to, dialled),
                Step::Reject(_)
                | Step::Answer
                | Step::Play(_)
                | Step::Echo
                | Step::Wait(_)
                | Step::Hangup => return None,
            }
        }
        None
    }

    /// Returns whether a URI's host means this PBX.
    fn is_ours(&self, host: &str) -> bool {
        let bare = host.trim_matches(['[', ']']);
        let listens = |ip: std::net::IpAddr| {
            self.legs.values().filter_map(|leg| leg.flow()).any(|flow| flow.local.ip() == ip)
        };
        bare.eq_ignore_ascii_case(&self.config.sip.realm) || bare.parse().is_ok_and(listens)
    }

    pub(super) fn new_leg(
        &self,
        name: Arc<str>,
        profile: Profile,
        spec: InviteSpec,
        flow: Option<Flow>,
        wire: &mut Wire<'_>,
    ) -> Leg {
        let owner = Owner { call: self.id, leg: wire.leg_id(self.id) };
        Leg::outgoing(owner, name, profile, spec, flow, wire)
    }

    fn caller_invite(&self) -> Option<Message> {
        match &self.legs.get(&self.caller)?.origin {
            Origin::Incoming(incoming) => incoming.invite.clone(),
            Origin::Outgoing(_) => None,
        }
    }
}

impl Identity {
    /// Returns the identity of a user of ours.
    pub fn of_user(user: &Arc<User>, display: Option<&str>, is_private: bool) -> Self {
        Self {
            user: user.name.clone(),
            display: user.display.clone().or_else(|| claimed_name(display?, user)),
            number: user.caller_id.clone(),
            is_private,
            phone: Some(user.clone()),
        }
    }

    /// Returns the identity of somebody behind a carrier.
    pub fn of_trunk(inbound: &Inbound) -> Self {
        let number = inbound.caller.as_ref().map(|number| number.expose());
        Self {
            user: number.unwrap_or("anonymous").into(),
            display: inbound.name.clone(),
            number: number.and_then(E164::parse),
            is_private: inbound.is_private,
            phone: None,
        }
    }
}

/// Returns the name that a phone gives itself, where nobody has given it one. Many show a name instead of the
/// number: one that is a number, and not its own, would be another identity.
fn claimed_name(name: &str, user: &User) -> Option<Box<str>> {
    let name: String = name.chars().filter(|c| plain::is_plain(*c)).take(NAME_CHARS_MAX).collect();
    let name = name.trim();
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let number = Some(digits(name)).filter(|digits| !digits.is_empty());
    let is_own = |number: &String| {
        let outside = user.caller_id.as_ref().map(|own| digits(own.expose()));
        *number == digits(&user.name) || Some(number) == outside.as_ref()
    };
    let is_number = !name.chars().any(char::is_alphabetic);
    let is_anothers = is_number && number.is_some_and(|number| !is_own(&number));
    (!name.is_empty() && !is_anothers).then(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Files};

    /// What the phone of 1001 calls itself, and what others see.
    #[test]
    fn a_phone_may_choose_its_name_and_not_its_number() {
        let text = "[trunk.t]\nuri = \"t.example.com\"\n[user.1001]\npassword = \"p\"\n\
                    caller_id = \"+17756187988\"\n";
        let checked = config::check("pbx.toml", &Files::default().with("pbx.toml", text));
        let users = checked.config.unwrap_or_else(|| panic!("{}", checked.report)).users;
        for (name, shown) in [
            ("Alice", Some("Alice")),
            ("  Alice 2\u{1b}[2J ", Some("Alice 2[2J")),
            ("\u{202e}ecilA", Some("ecilA")),
            ("Größe 電話", Some("Größe 電話")),
            ("1001", Some("1001")),
            ("+1 (775) 618-7988", Some("+1 (775) 618-7988")),
            ("1002", None),
            ("+1 (900) 555-0100", None),
            ("\u{200b}+19005550100", None),
            ("911", None),
            ("", None),
            ("\r\n", None),
        ] {
            assert_eq!(claimed_name(name, &users["1001"]).as_deref(), shown, "{name:?}");
        }
        let long = "a".repeat(100);
        assert_eq!(claimed_name(&long, &users["1001"]).map(|name| name.len()), Some(64));
    }
}
