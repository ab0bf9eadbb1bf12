//! One call: its legs and what couples them (RFC 3261 6, RFC 7092).
