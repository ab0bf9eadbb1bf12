//! A call's program: the steps that the dialplan gave, one after the other.
//!
//! Owns: which step runs, and until when.
//! Never: matches a number (the dialplan does) or talks to a callee (the hunt's legs do).

use super::{
    Call, Ender, Phase,
    hunt::Hunt,
    leg::Stage,
    wire::{Ask, Wire},
};
use crate::{
    dialplan::{Decision, Query, Step},
    media,
    sdp::NoCommonCodec,
    sip::{HeaderName, default_reason},
};
use std::{collections::VecDeque, time::Instant};

/// How many `goto`s one call may follow. `check` finds loops; this holds those it cannot see.
pub(super) const GOTO_MAX: u8 = 16;

/// What the program is doing.
#[derive(Debug)]
pub(super) enum Doing {
    /// Nothing yet, or nothing any more.
    Nothing,
    /// Calling targets.
    Dialing(Box<Hunt>),
    /// Waiting for a sound file, then for its end.
    Playing {
        /// Tells this prompt's end from another's.
        token: u64,
        /// As the dialplan names it.
        file: Box<str>,
    },
    /// Sending the caller its own voice until it hangs up.
    Echoing,
    /// Passing time.
    Waiting(Instant),
}

/// The steps of one call.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) context: Box<str>,
    pub(super) dialled: Box<str>,
    pub(super) doing: Doing,
    steps: VecDeque<Step>,
    gotos: u8,
    prompts: u64,
}

impl Program {
    pub(super) fn new(context: Box<str>, dialled: Box<str>) -> Self {
        Self {
            context,
            dialled,
            doing: Doing::Nothing,
            steps: VecDeque::new(),
            gotos: 0,
            prompts: 0,
        }
    }

    /// Nothing more is to happen.
    pub(super) fn stop(&mut self) {
        self.doing = Doing::Nothing;
        self.steps.clear();
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.doing {
            Doing::Dialing(hunt) => hunt.poll_timeout(),
            Doing::Waiting(until) => Some(*until),
            Doing::Nothing | Doing::Playing { .. } | Doing::Echoing => None,
        }
    }

    pub(super) fn hunt(&mut self) -> Option<&mut Hunt> {
        match &mut self.doing {
            Doing::Dialing(hunt) => Some(hunt),
            Doing::Nothing | Doing::Playing { .. } | Doing::Echoing | Doing::Waiting(_) => None,
        }
    }
}

impl Call {
    /// The caller's media port is open: ask the dialplan and begin.
    pub(super) fn start_program(&mut self, wire: &mut Wire<'_>) {
        let caller = self.legs.get(&self.caller);
        let refusal = self
            .caller_offer
            .as_ref()
            .zip(caller)
            .and_then(|(offer, caller)| caller.profile.policy.admits(offer).err());
        match refusal {
            None => self.route(wire),
            Some(why) => self.refuse_media(&why, wire),
        }
    }

    /// Refuses a caller whose media can never be answered, and says why in a Warning (RFC 3261 20.43).
    fn refuse_media(&mut self, why: &NoCommonCodec, wire: &mut Wire<'_>) {
        self.draft.bad_offer(why);
        let warning = format!("{} tandem \"{why}\"", why.warning());
        self.with_leg(self.caller, wire, |leg, wire, out| {
            let headers = [(HeaderName::Warning, warning)];
            leg.refuse(488, default_reason(488), &headers, wire, out);
        });
        self.end(Ender::Us, 488, None, wire);
    }

    /// Asks the dialplan what to do with the number dialled, in the present context.
    fn route(&mut self, wire: &mut Wire<'_>) {
        let at = self.config.node.timezone.local(wire.wall);
        let query = Query {
            context: &self.program.context,
            from: &self.identity.user,
            dialled: &self.program.dialled,
            at,
        };
        match self.config.dialplan.route(&query) {
            Decision::Matched { rule, steps, .. } => {
                self.draft.routed(&rule);
                self.program.steps = steps.into();
                self.next_step(wire);
            }
            Decision::NoRule | Decision::NoContext => {
                self.draft.unroutable(&self.program.context, &self.program.dialled);
                self.end(Ender::Us, 404, Some("Q.850;cause=1;text=\"No rule\""), wire);
            }
        }
    }

    /// Runs steps until one takes time.
    pub(super) fn next_step(&mut self, wire: &mut Wire<'_>) {
        while self.phase == Phase::Running {
            self.program.doing = Doing::Nothing;
            let Some(step) = self.program.steps.pop_front() else {
                return self.end(Ender::Us, 480, super::NORMAL, wire);
            };
            let takes_time = self.run_step(step, wire);
            if takes_time {
                return;
            }
        }
    }

    /// Runs one step; returns whether the program must wait for it.
    fn run_step(&mut self, step: Step, wire: &mut Wire<'_>) -> bool {
        match step {
            Step::Dial(dial) => {
                self.program.doing = Doing::Dialing(Box::new(Hunt::new(dial)));
                self.next_group(wire);
                true
            }
            Step::Reject(status) => {
                self.draft.rejected_by_rule(status);
                self.end(Ender::Us, status, None, wire);
                true
            }
            Step::Answer => !self.answer_alone(wire),
            Step::Play(file) => {
                if !self.answer_alone(wire) {
                    return true;
                }
                self.program.prompts = self.program.prompts.wrapping_add(1);
                let token = self.program.prompts;
                wire.ask(Ask::Prompt { call: self.id, file: file.clone() });
                self.program.doing = Doing::Playing { token, file };
                true
            }
            Step::Echo => {
                if self.answer_alone(wire) {
                    wire.media(self.id, media::Command::Echo { leg: self.caller });
                    self.program.doing = Doing::Echoing;
                }
                true
            }
            Step::Wait(time) => {
                self.program.doing = Doing::Waiting(wire.now + time);
                true
            }
            Step::Hangup => {
                self.end(Ender::Us, 603, super::NORMAL, wire);
                true
            }
            Step::Goto { context, number } => {
                self.goto(context, number, wire);
                true
            }
        }
    }

    pub(super) fn goto(&mut self, context: Box<str>, number: Box<str>, wire: &mut Wire<'_>) {
        self.program.gotos = self.program.gotos.saturating_add(1);
        if self.program.gotos > GOTO_MAX {
            self.draft.looped();
            return self.end(Ender::Us, 482, Some("SIP;cause=482;text=\"Dialplan loop\""), wire);
        }
        self.program.context = context;
        self.program.dialled = number;
        self.route(wire);
    }

    /// Runs the steps of an `on` branch instead of what is left.
    pub(super) fn branch(&mut self, steps: Vec<Step>, wire: &mut Wire<'_>) {
        self.program.steps = steps.into();
        self.next_step(wire);
    }

    /// Answers the caller as the far end, unless it was answered before. Returns whether the caller
    /// can now be spoken to; otherwise the call is ending, or its ACK must bring the answer first.
    fn answer_alone(&mut self, wire: &mut Wire<'_>) -> bool {
        let Some(caller) = self.legs.get_mut(&self.caller) else { return false };
        if caller.is_up() {
            return true;
        }
        let answer = match &self.caller_offer {
            // Early media has answered it before; another answer would be one too many.
            Some(_) if caller.media.agreed().is_some() => {
                caller.media.last_said().ok_or(NoCommonCodec::NoOffer)
            }
            Some(offer) => caller.media.answer_alone(offer),
            None => caller.media.fresh_offer(crate::sdp::Direction::SendRecv),
        };
        match answer {
            Ok(sdp) => {
                caller.answer(&sdp, wire);
                self.draft.answered(wire);
                self.connect(wire);
                true
            }
            Err(_) => {
                self.draft.no_codec();
                self.end(Ender::Us, 488, None, wire);
                false
            }
        }
    }

    /// A delayed offer's answer has come in the ACK: media may flow now.
    pub(super) fn resume_program(&self, wire: &mut Wire<'_>) {
        if matches!(self.program.doing, Doing::Echoing) {
            wire.media(self.id, media::Command::Echo { leg: self.caller });
        }
    }

    /// Takes a sound file that was asked for; `None` where it cannot be read.
    pub fn on_prompt(&mut self, file: &str, prompt: Option<media::Prompt>, wire: &mut Wire<'_>) {
        let Doing::Playing { token, file: wanted } = &self.program.doing else { return };
        if **wanted != *file || self.phase != Phase::Running {
            return;
        }
        let token = *token;
        match prompt {
            Some(prompt) => wire.media(
                self.id,
                media::Command::Play { leg: self.caller, prompt, loops: false, token },
            ),
            None => {
                self.next_step(wire);
            }
        }
    }

    /// A prompt has been heard to its end.
    pub(super) fn played(&mut self, token: u64, wire: &mut Wire<'_>) {
        if matches!(&self.program.doing, Doing::Playing { token: now, .. } if *now == token) {
            self.next_step(wire);
        }
    }

    pub(super) fn program_timeout(&mut self, wire: &mut Wire<'_>) {
        if self.phase != Phase::Running
            || self.program.poll_timeout().is_none_or(|at| at > wire.now)
        {
            return;
        }
        match &self.program.doing {
            Doing::Waiting(_) => self.next_step(wire),
            Doing::Dialing(_) => self.ring_timeout(wire),
            Doing::Nothing | Doing::Playing { .. } | Doing::Echoing => {}
        }
    }

    /// Returns whether the caller's leg has been answered.
    pub(super) fn caller_is_up(&self) -> bool {
        self.legs.get(&self.caller).is_some_and(|leg| match leg.stage() {
            Stage::Unacknowledged | Stage::Up => true,
            Stage::Opening | Stage::Ringing | Stage::Leaving | Stage::Gone => false,
        })
    }
}
