//! Flows: the product, phones and a carrier in the simulated world, one behaviour a file.
//!
//! On a clean network the ladder is exactly this text; on a bad one, whatever is lost, doubled or
//! overtaken, everything comes to an end and nothing is left (`storm`).
#![cfg(test)]

mod cancel;
mod hold;
mod house;
mod hunt;
mod inbound;
mod outbound;
mod phone_calls_phone;
mod ringback;
mod register;
mod steps;
mod storm;
mod trunk_limits;
mod trunk_refuses;
