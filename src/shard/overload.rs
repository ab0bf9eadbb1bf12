//! More comes than can be done: what is under way goes first, new work waits for a moment, and what has waited too
//! long is refused while that is still cheap (RFC 5390, RFC 7339).
//!
//! Owns: what waits, in which order it is served, what is refused, and the answer.
//! Never: reads a socket; the shell asks for one thing after the other. Keeps anything but a digest of what it refuses.

use super::{
    Core, Shard, admission,
    refusals::Refusals,
    waiting::{Patience, Waiting},
};
use crate::{
    ids::{Digest, Flow, Mint},
    observe::metrics,
    sip::{HeaderName, Message, Method, Outline, Uri, default_reason},
};
use bytes::Bytes;
use memchr::memmem;
use std::{
    ops::Range,
    time::{Duration, Instant},
};

/// When whoever is refused may come again, in seconds: at random, so that they do not come together.
const CALL_AGAIN_S: Range<u64> = 1..10;
/// Phones that come back after an outage can wait longer than people who dial.
const REGISTER_AGAIN_S: Range<u64> = 5..60;
/// How often the log speaks of it.
const EVERY_S: u64 = 60;
/// How long after a refusal there is still too much: what calls can do without is left out, which leaves time for more
/// of them.
const SPARING: Duration = Duration::from_secs(1);

/// Peers repeat requests after half a second; bursts are shorter than what is calm.
const FIRST_TRIES: Patience =
    Patience { calm: Duration::from_millis(100), hurried: Duration::from_millis(20) };
/// What was done for its challenge should not be in vain; there are no more of these than of challenges.
const SECOND_TRIES: Patience =
    Patience { calm: Duration::from_millis(400), hurried: Duration::from_millis(400) };

/// What waits for its turn.
#[derive(Debug)]
enum Job {
    /// New work: its outline is soon found again, where it has to be refused.
    New(Bytes),
    /// A CANCEL, which must not overtake its INVITE.
    Cancel(Bytes),
}

/// The lines in which new work waits. They take turns, so that neither calls nor phones keep the others out.
#[derive(Debug)]
struct Lines {
    /// Calls, REGISTERs with credentials, REGISTERs without.
    lines: [Waiting<(Flow, Job)>; 3],
    /// Whose turn it is.
    next: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self { lines: [FIRST_TRIES, SECOND_TRIES, FIRST_TRIES].map(Waiting::new), next: 0 }
    }
}

impl Lines {
    fn calls(&mut self) -> &mut Waiting<(Flow, Job)> {
        let [calls, ..] = &mut self.lines;
        calls
    }

    fn of(&mut self, outline: &Outline<'_>) -> &mut Waiting<(Flow, Job)> {
        let [calls, proofs, registers] = &mut self.lines;
        if outline.method() == Method::Invite {
            calls
        } else if outline.has_credentials() {
            proofs
        } else {
            registers
        }
    }

    fn pop(&mut self) -> Option<(Flow, Job)> {
        let [a, b, c] = &mut self.lines;
        let turns = match self.next {
            0 => [a, b, c],
            1 => [b, c, a],
            _ => [c, a, b],
        };
        self.next = self.next.wrapping_add(1) % 3;
        turns.into_iter().find_map(Waiting::pop)
    }

    fn pop_stale(&mut self, now: Instant) -> Option<(Flow, Job)> {
        self.lines.iter_mut().find_map(|line| line.pop_stale(now))
    }
}

/// What waits, and what of it had to be refused.
#[derive(Debug)]
pub(super) struct Overload {
    lines: Lines,
    refused: u64,
    /// How many of these got an answer.
    answered: u64,
    /// In the To of every answer: they have no state that could tell them apart, and their ACKs are
    /// known by it.
    tag: Box<str>,
    tag_finder: memmem::Finder<'static>,
    refusals: Refusals,
    /// When the log told last, and how many had been refused by then.
    told: Option<(Instant, u64)>,
}

impl Overload {
    pub(super) fn new(mint: &mut Mint) -> Self {
        let tag: Box<str> = mint.tag().into();
        let tag_finder = memmem::Finder::new(tag.as_bytes()).into_owned();
        let (lines, refusals) = (Lines::default(), Refusals::default());
        Self { lines, refused: 0, answered: 0, tag, tag_finder, refusals, told: None }
    }

    /// Returns whether this is the ACK of a refusal. Nobody waits for it, and there are as many as
    /// refusals: it is not even read.
    pub(super) fn is_ack_of_refusal(&self, bytes: &[u8]) -> bool {
        self.refused > 0 && bytes.starts_with(b"ACK ") && self.tag_finder.find(bytes).is_some()
    }

    /// Adds what was refused.
    pub(super) fn count_into(&self, counters: &mut metrics::Shard) {
        counters.discards.add("overload", self.refused);
        counters.responses_sent.add(metrics::Shard::class(503), self.answered);
    }

    /// Tells once a minute.
    fn tell(&mut self, now: Instant) {
        let is_due =
            |(at, _): (Instant, u64)| now.saturating_duration_since(at).as_secs() >= EVERY_S;
        if self.told.is_none_or(is_due) {
            let before = self.told.map_or(0, |(_, refused)| refused);
            let refused = self.refused.saturating_sub(before);
            let left_out = "lines of calls that go well, ladders of all calls";
            let help = "`tandem cdr` has every call";
            tracing::warn!(
                refused,
                left_out,
                help,
                "overloaded: new calls and registrations are refused"
            );
            self.told = Some((now, self.refused));
        }
    }
}

impl Core {
    /// Returns whether calls are refused for want of time, or were a moment ago.
    pub(super) fn is_overloaded(&self, now: Instant) -> bool {
        self.overloaded_until.is_some_and(|until| now < until)
    }
}

impl Shard {
    /// Accepts one message while others wait. What belongs to a call, or calls for help, is done at once; new calls
    /// and registrations wait for [`Self::serve_next`].
    pub fn queue_message(&mut self, flow: Flow, bytes: Bytes, now: Instant) {
        if !self.put_aside(flow, &bytes, now) {
            self.handle_message(flow, bytes, now);
        }
    }

    /// Puts a message aside that need not be done at once: it waits for [`Self::serve_next`], is refused because too much
    /// waits, or nobody wants to hear of it. Returns whether that is all; otherwise it is for [`Self::handle_message`].
    pub fn put_aside(&mut self, flow: Flow, message: &[u8], now: Instant) -> bool {
        // Who leaves gives new work to the next process.
        if self.family.is_leaving() {
            return false;
        }
        if self.is_needless(message) || self.is_silenced(flow, now) {
            return true;
        }
        let mut is_aside = true;
        self.guarded(|shard| is_aside = shard.line_up(flow, message, now));
        is_aside
    }

    /// Returns whether nobody wants to hear of a datagram: the ACK of a refusal, of which there are as many as of
    /// those. Nothing of it need be kept, not even for a moment.
    pub fn is_needless(&self, datagram: &[u8]) -> bool {
        self.overload.is_ack_of_refusal(datagram)
    }

    /// Returns whether something waits for [`Self::serve_next`].
    pub fn has_waiting(&self) -> bool {
        self.overload.lines.lines.iter().any(|line| !line.is_empty())
    }

    /// Does what has waited longest of one kind, each kind in turn. Returns whether there was anything.
    pub fn serve_next(&mut self, now: Instant) -> bool {
        let Some((flow, job)) = self.overload.lines.pop() else { return false };
        self.serve(flow, job, now);
        true
    }

    /// Refuses what has waited for too long, without state. What repeats a request that was taken is never refused.
    pub fn refuse_stale(&mut self, now: Instant) {
        while let Some((flow, job)) = self.overload.lines.pop_stale(now) {
            self.refuse_job(flow, job, now);
        }
        self.settle(now);
    }

    /// Refuses all that waits, for however short a time, as [`Self::refuse_stale`] does.
    pub fn refuse_waiting(&mut self, now: Instant) {
        while let Some((flow, job)) = self.overload.lines.pop() {
            self.refuse_job(flow, job, now);
        }
        self.settle(now);
    }

    fn refuse_job(&mut self, flow: Flow, job: Job, now: Instant) {
        match job {
            Job::New(bytes) => self.guarded(|shard| {
                let outline = Outline::of(&bytes);
                if !outline.is_some_and(|outline| shard.shed(flow, &outline, now)) {
                    shard.receive(None, flow, bytes, now);
                }
            }),
            Job::Cancel(_) => self.serve(flow, job, now),
        }
    }

    fn serve(&mut self, flow: Flow, job: Job, now: Instant) {
        let (Job::New(bytes) | Job::Cancel(bytes)) = job;
        self.guarded(|shard| shard.receive(None, flow, bytes, now));
        self.settle(now);
    }

    /// Lets new work wait, or refuses it. Returns whether it is any.
    fn line_up(&mut self, flow: Flow, message: &[u8], now: Instant) -> bool {
        // A copy of its own size, where it is kept.
        let copy = || Bytes::copy_from_slice(message);
        let Some(outline) = Outline::of(message) else {
            let calls = self.overload.lines.calls();
            let has_room = !calls.is_empty() && message.starts_with(b"CANCEL ");
            return has_room && calls.push(|| (flow, Job::Cancel(copy())), message.len(), now);
        };
        if self.is_for_help(outline.uri()) {
            return false;
        }
        let line = self.overload.lines.of(&outline);
        line.push(|| (flow, Job::New(copy())), message.len(), now) || self.shed(flow, &outline, now)
    }

    /// Answers new work with 503, unless it repeats a request that was taken. Returns whether it did.
    fn shed(&mut self, flow: Flow, outline: &Outline<'_>, now: Instant) -> bool {
        let Some(digest) = self.digest_of(outline).filter(|digest| !self.is_taken(*digest)) else {
            return false;
        };
        let again_s = if outline.method() == Method::Invite {
            self.turned.note(digest, now);
            CALL_AGAIN_S
        } else {
            REGISTER_AGAIN_S
        };
        let span = again_s.end.saturating_sub(again_s.start);
        let again_s = again_s.start.saturating_add(self.core.entropy.below(span));
        self.overload.refused = self.overload.refused.saturating_add(1);
        self.overload.tell(now);
        self.core.overloaded_until = Some(now + SPARING);
        let Overload { refusals, tag, answered, .. } = &mut self.overload;
        let most = admission::room_for(outline.message().len(), flow);
        let is_answered = refusals.add(flow, most, |text| {
            outline.reply_into(text, (503, default_reason(503)), tag, flow.remote, |reply| {
                reply.number(HeaderName::RetryAfter, again_s);
            });
        });
        *answered = answered.saturating_add(is_answered.into());
        true
    }

    /// Returns whether there are so many refusals that they should be sent before more is done.
    pub fn has_enough_refusals(&self) -> bool {
        self.overload.refusals.are_enough()
    }

    /// Gives the refusals that are to be sent, for others that have been.
    pub fn swap_refusals(&mut self, sent: &mut Refusals) {
        sent.clear();
        std::mem::swap(&mut self.overload.refusals, sent);
    }

    /// Returns what a request is known by; `None` where it cannot be read.
    fn digest_of(&self, outline: &Outline<'_>) -> Option<Digest> {
        let (branch, sent_by) = (outline.branch(), outline.sent_by());
        self.core.tx.digest_of_via(branch, sent_by, outline.method()).or_else(|| {
            let message = Message::parse(Bytes::copy_from_slice(outline.message())).ok()?;
            Some(self.core.tx.digest_of(&message))
        })
    }

    /// Returns whether a request was received before, here or by the process before this one.
    fn is_taken(&self, digest: Digest) -> bool {
        self.core.tx.has_received(digest) || self.family.predecessor_has(digest)
    }

    /// Returns whether a Request-URI calls for help.
    pub(super) fn is_for_help(&self, uri: &str) -> bool {
        let user = Uri::parse(uri).and_then(|uri| uri.user);
        user.is_some_and(|user| self.core.shared.config.emergency.is(user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        observe::log::{Format, tests::written},
        shard::Output,
        shard::tests::{USERS, flow, invite, shard},
        sim::epoch,
    };

    /// What the shard answers to what it is made to do.
    fn answers(shard: &mut Shard, act: impl FnOnce(&mut Shard)) -> Vec<Message> {
        act(shard);
        let sent = std::iter::from_fn(|| shard.poll_output()).filter_map(|output| match output {
            Output::Transmit { bytes, .. } => Some(bytes),
            Output::Pass { .. } | Output::Media(..) | Output::Ask(_) | Output::Record(_) => None,
        });
        let sent: Vec<Bytes> = sent.collect();
        let mut refusals = Refusals::default();
        shard.swap_refusals(&mut refusals);
        let refusals = refusals.iter().map(|(_, text)| Bytes::copy_from_slice(text));
        refusals.chain(sent).map(|bytes| Message::parse(bytes).unwrap()).collect()
    }

    fn statuses(shard: &mut Shard, act: impl FnOnce(&mut Shard)) -> Vec<u16> {
        answers(shard, act).iter().map(Message::status).collect()
    }

    fn queue(text: &str, now: Instant) -> impl FnOnce(&mut Shard) + '_ {
        move |shard| shard.queue_message(flow(), Bytes::from(text.to_owned()), now)
    }

    fn after(now: Instant, ms: u64) -> Instant {
        now + Duration::from_millis(ms)
    }

    fn refused(shard: &mut Shard, now: Instant) -> Vec<Message> {
        answers(shard, |shard| shard.refuse_stale(now))
    }

    #[test]
    fn new_work_waits_and_is_then_refused_and_nothing_of_it_kept() {
        let now = epoch();
        let mut shard = shard(USERS, now);
        let register = invite("r").replace("INVITE", "REGISTER");
        let odd = invite("odd").replace("z9hG4bK", "of-rfc-2543");
        for (text, again_s) in
            [(invite("one"), CALL_AGAIN_S), (odd, CALL_AGAIN_S), (register, REGISTER_AGAIN_S)]
        {
            assert_eq!(statuses(&mut shard, queue(&text, now)), [0; 0]);
            assert_eq!(refused(&mut shard, after(now, 99)).len(), 0);
            let first = refused(&mut shard, after(now, 100));
            let [refusal] = &first[..] else { panic!("{first:?}") };
            assert_eq!(refusal.status(), 503);
            assert!(again_s.contains(&refusal.number(HeaderName::RetryAfter).unwrap().into()));
            _ = statuses(&mut shard, queue(&text, after(now, 101)));
            let copy = refused(&mut shard, after(now, 201));
            assert_eq!(copy[0].to_tag(), refusal.to_tag(), "the same for a copy");
            let tag =
                format!("{};tag={}", "<sip:+14155550100@10.0.0.1>", refusal.to_tag().unwrap());
            let ack = text.replace("INVITE", "ACK").replace("<sip:+14155550100@10.0.0.1>", &tag);
            if text.starts_with("INVITE") {
                assert!(shard.is_needless(ack.as_bytes()) && !shard.is_needless(text.as_bytes()));
                assert_eq!(statuses(&mut shard, queue(&ack, after(now, 201))), [0; 0]);
            }
        }
        assert!(shard.is_empty() && !shard.has_waiting());
    }

    #[test]
    fn what_waits_is_served_in_turn() {
        let now = epoch();
        let mut shard = shard(USERS, now);
        let call = |name: &str| invite(name);
        let register = |name: &str| invite(name).replace("INVITE", "REGISTER");
        let proof =
            register("p").replace("Max-Forwards", "Authorization: Digest x=y\r\nMax-Forwards");
        for text in [register("1"), register("2"), call("3"), call("4"), proof] {
            assert_eq!(statuses(&mut shard, queue(&text, now)), [0; 0]);
        }
        let mut order = vec![];
        while shard.has_waiting() {
            let served = answers(&mut shard, |shard| assert!(shard.serve_next(now)));
            let first = served.first().map(|first| (first.cseq().method, first.status()));
            order.push(first.unwrap());
        }
        let (call, register) = ((Method::Invite, 100), (Method::Register, 401));
        assert_eq!(order[0], call);
        assert_eq!(order[3], call, "after one of each kind");
        assert_eq!(order.iter().filter(|one| **one == register).count(), 3, "{order:?}");
        assert!(!shard.serve_next(now));
    }

    #[test]
    fn what_is_under_way_and_what_calls_for_help_does_not_wait() {
        let now = epoch();
        let mut shard = shard(USERS, now);
        let one = invite("one");
        shard.handle_message(flow(), Bytes::from(one.clone()), now);
        _ = statuses(&mut shard, |_| ());
        _ = statuses(&mut shard, queue(&one, now));
        assert_eq!(refused(&mut shard, after(now, 100))[0].status(), 100, "a copy");
        let help = invite("two").replace("sip:+14155550100@", "sip:112@");
        assert_eq!(statuses(&mut shard, queue(&help, now))[0], 100);
        let options = invite("three").replace("INVITE", "OPTIONS");
        assert_eq!(statuses(&mut shard, queue(&options, now)), [200]);
        let cancel = one.replace("INVITE", "CANCEL");
        assert!(statuses(&mut shard, queue(&cancel, now)).contains(&200));
    }

    #[test]
    fn while_calls_are_refused_others_do_without_lines_and_ladders() {
        let now = epoch();
        let mut shard = shard(USERS, now);
        let refuse = |shard: &mut Shard, name: &str, ms: u64| {
            _ = statuses(shard, queue(&invite(name), after(now, ms - 100)));
            assert_eq!(refused(shard, after(now, ms)).len(), 1);
        };
        let is_drawn = |shard: &Shard, n: usize| {
            let call = shard.calls(now).get(n).map(|call| call.call).unwrap();
            shard.ladder(call).is_some()
        };
        let lines = written(Format::Text, "info", || {
            let tell = |shard: &mut Shard, text: String, ms, want: u16| {
                let handle = |shard: &mut Shard| {
                    shard.handle_message(flow(), text.into(), after(now, ms));
                };
                assert!(statuses(shard, handle).contains(&want));
            };
            let cancel = |name: &str| invite(name).replace("INVITE", "CANCEL");
            tell(&mut shard, invite("one"), 99, 100);
            refuse(&mut shard, "refused", 100);
            tell(&mut shard, invite("two"), 1099, 100);
            tell(&mut shard, invite("three"), 1100, 100);
            assert_eq!([0, 1, 2].map(|n| is_drawn(&shard, n)), [true, false, true]);
            // Each record is written once its media should have told how it was, which nobody plays here.
            tell(&mut shard, cancel("three"), 1100, 487);
            shard.handle_timeout(after(now, 20_000));
            tell(&mut shard, cancel("one"), 20_000, 487);
            refuse(&mut shard, "refused-too", 40_000);
            shard.handle_timeout(after(now, 40_000));
        });
        let count = |what| lines.matches(what).count();
        let of = ["call started", "call ended", "overloaded:"].map(count);
        assert_eq!(of, [2, 1, 1], "{lines}");
    }

    #[test]
    fn a_cancel_does_not_overtake_its_invite() {
        let now = epoch();
        let mut shard = shard(USERS, now);
        let one = invite("one");
        _ = statuses(&mut shard, queue(&one, now));
        let cancel = one.replace("INVITE", "CANCEL");
        assert_eq!(statuses(&mut shard, queue(&cancel, now)), [0; 0]);
        assert_eq!(statuses(&mut shard, |shard| _ = shard.serve_next(now))[0], 100);
        let ended = statuses(&mut shard, |shard| _ = shard.serve_next(now));
        assert_eq!(ended, [200, 487]);
        // Where the INVITE was refused, there is nothing to cancel.
        let two = invite("two");
        _ = statuses(&mut shard, queue(&two, now));
        _ = statuses(&mut shard, queue(&two.replace("INVITE", "CANCEL"), now));
        let answers = statuses(&mut shard, |shard| shard.refuse_stale(after(now, 100)));
        assert_eq!(answers, [503, 481]);
    }

    /// The client did not hear the refusal. By the time its copy comes, there is room.
    #[test]
    fn a_copy_of_what_was_refused_does_not_become_a_call() {
        let now = epoch();
        let mut shard = shard(USERS, now);
        let one = invite("one");
        _ = statuses(&mut shard, queue(&one, now));
        assert_eq!(refused(&mut shard, after(now, 100))[0].status(), 503);
        for ms in [500, 1500, 3500, 7500, 15_500, 31_500] {
            let at = after(now, ms);
            shard.handle_timeout(at);
            let handle = |shard: &mut Shard| {
                shard.handle_message(flow(), Bytes::from(one.clone()), at);
            };
            assert_eq!(statuses(&mut shard, handle), [503], "{ms} ms");
        }
        assert!(shard.is_empty());
        let again = one.replace("z9hG4bK", "z9hG4bK-again-");
        let at = after(now, 32_000);
        assert_eq!(statuses(&mut shard, queue(&again, at)), [0; 0]);
        assert_eq!(statuses(&mut shard, |shard| _ = shard.serve_next(at))[0], 100);
    }

    /// What is too much for the line is refused at once, and what it holds is bounded.
    #[test]
    fn there_is_room_for_so_many() {
        let now = epoch();
        let mut shard = shard(USERS, now);
        let answer = |n| statuses(&mut shard, queue(&invite(&format!("call-{n}")), now));
        let refused: Vec<u16> = (0..5000).flat_map(answer).collect();
        assert_eq!(refused, [503; 5000 - 4096]);
        assert_eq!(statuses(&mut shard, |shard| shard.refuse_stale(after(now, 100))), [503; 4096]);
    }
}
