//! SIP messages as slices of the datagram (RFC 3261 7, 20, 25).
