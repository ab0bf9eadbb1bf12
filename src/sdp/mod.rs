//! Session descriptions and what two legs can agree on (RFC 8866, RFC 3264).
