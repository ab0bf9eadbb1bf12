//! What an operator sees: ladders, CDRs, metrics, masked numbers.
