"""Makes libsrtp.txt: packets as libsrtp protects them, for the unit tests of `src/media/srtp`.

Run with the wheel `pylibsrtp`: `python tests/srtp/vectors.py > tests/srtp/libsrtp.txt`.

Each line is `suite key` (the key with its salt), then under it `rtp plain protected` and `rtcp plain
protected`, in the order in which they were sent. Sequence numbers begin again on the way.
"""

import struct

from pylibsrtp import Policy, Session

SUITES = [
    ("AES_CM_128_HMAC_SHA1_80", Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 30),
    ("AES_CM_128_HMAC_SHA1_32", Policy.SRTP_PROFILE_AES128_CM_SHA1_32, 30),
    ("AEAD_AES_128_GCM", Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 28),
    ("AEAD_AES_256_GCM", Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 44),
]
SSRC = 0xCAFEBABE


def rtp(sequence: int, n: int) -> bytes:
    """A packet; some have contributing sources, a header extension, padding, or nothing in them."""
    first, extra = 0x80, b""
    if n % 3 == 1:
        first, extra = first | 0x02, struct.pack("!II", 1, 2)
    if n % 4 == 2:
        first, extra = first | 0x10, extra + struct.pack("!HHI", 0xBEDE, 1, 0x10203040)
    payload = bytes((i * 7 + n) & 0xFF for i in range((0, 1, 20, 33)[n % 4]))
    if n == 5:
        first, payload = first | 0x20, payload + b"\x00\x00\x00\x04"
    header = struct.pack("!BBHII", first, 0x80 if n == 0 else 0, sequence, n * 160, SSRC)
    return header + extra + payload


def rtcp(n: int) -> bytes:
    """A sender report with a CNAME."""
    report = struct.pack("!BBHIIIIII", 0x80, 200, 6, SSRC, n, n + 1, n * 160, n, n * 160)
    return report + struct.pack("!BBHI", 0x81, 202, 2, SSRC) + b"\x01\x02ab"


def main() -> None:
    for name, profile, key_len in SUITES:
        key = bytes((i * 11 + key_len) & 0xFF for i in range(key_len))
        print(name, key.hex())
        policy = Policy(key=key, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile)
        session = Session(policy=policy)
        for n, sequence in enumerate([32000, 60000, *range(65532, 65536), *range(4), 30000, 60000, 5]):
            plain = rtp(sequence, n)
            print("rtp", plain.hex(), session.protect(plain).hex())
        for n in range(3):
            plain = rtcp(n)
            print("rtcp", plain.hex(), session.protect_rtcp(plain).hex())


if __name__ == "__main__":
    main()
