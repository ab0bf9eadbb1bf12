//! Flows: the product, phones and a carrier in the simulated world, one behaviour a file.
//!
//! On a clean network the ladder is exactly this text; on a bad one, whatever is lost, doubled or
//! overtaken, everything comes to an end and nothing is left (`storm`).
#![cfg(test)]

mod acks;
mod budgets;
mod cancel;
mod chaos;
mod codecs;
mod disk;
mod failover;
mod guards;
mod hold;
mod house;
mod hunt;
mod inbound;
mod late_answer;
mod late_offer;
mod lossy;
mod media;
mod operator;
mod outbound;
mod phone_calls_phone;
mod phrases;
mod public_ip;
mod quality;
mod queue;
mod redirect;
mod register;
mod reliable;
mod ringback;
mod session_timer;
mod srtp;
mod steps;
mod storm;
mod strangers;
mod third_party;
mod transports;
mod trunk_health;
mod trunk_limits;
mod trunk_refuses;
mod trunk_tcp;
mod unreached;
mod upgrade;
mod vanishing;
