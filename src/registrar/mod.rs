//! Who is reachable where (RFC 3261 10), and who may say so (RFC 3261 22).
