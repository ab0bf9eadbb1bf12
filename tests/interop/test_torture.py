"""The messages of RFC 4475 and RFC 5118 against the running program, over UDP and TCP."""

import json
import pathlib
import re
import select
import socket
import time
import uuid

import pytest
from process import PATIENCE

CORPUS = pathlib.Path(__file__).resolve().parents[1] / "corpus"
REACTIONS = [json.loads(line) for line in (CORPUS / "reactions.jsonl").read_text().splitlines()]
PROBE = (
    "OPTIONS sip:pbx SIP/2.0\r\nVia: SIP/2.0/{transport} 127.0.3.1:{port};branch=z9hG4bK{unique};rport\r\n"
    "From: <sip:t@127.0.3.1>;tag={unique}\r\nTo: <sip:pbx>\r\nCall-ID: {unique}\r\n"
    "CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
)


def probe(link, transport):
    """A request that is answered 200, unlike any before it."""
    port = link.getsockname()[1]
    unique = uuid.uuid4().hex
    return PROBE.format(transport=transport.upper(), port=port, unique=unique).encode()


def connect(pbx, transport):
    host, port = pbx.address(transport).rsplit(":", 1)
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    link = socket.socket(socket.AF_INET, kind)
    link.bind(("127.0.3.1", 0))
    link.settimeout(PATIENCE)
    link.connect((host, int(port)))
    return link


def read(link, must_answer):
    """Everything that has come, and what comes within a moment more; an answer that must come is waited for."""
    heard, end = b"", time.monotonic() + PATIENCE
    while True:
        waits = must_answer and not finals(heard)
        moment = max(0.02, end - time.monotonic()) if waits else 0.02
        if not select.select([link], [], [], moment)[0]:
            return heard
        part = link.recv(65536)
        if not part:
            return heard  # closed
        heard += part


def is_alive(pbx, transport):
    """Asserts that the program still answers."""
    with connect(pbx, transport) as link:
        link.sendall(probe(link, transport))
        assert b"SIP/2.0 200 " in link.recv(65536)


def finals(heard):
    """The status of each final response."""
    codes = re.findall(rb"^SIP/2\.0 (\d{3}) ", heard, re.MULTILINE)
    return [int(code) for code in codes if int(code) >= 200]


def is_sensible(status):
    return status != 400 and (status < 500 or status == 501 or status >= 600)


def judge(entry, codes):
    """What is wrong with these final answers; nothing if they are right."""
    match entry["cls"]:
        case "valid" if not codes:
            return "no answer"
        case "valid" if not all(map(is_sensible, codes)):
            return f"not sensible: {codes}"
        case "codes" if not set(codes) <= set(entry["codes"]):
            return f"{codes}, not of {entry['codes']}"
        case "invalid" if not all(400 <= code < 700 for code in codes):
            return f"taken: {codes}"
        case "response" | "ack" if codes:
            return f"answered: {codes}"
    return None


def branch(message):
    """Of the topmost Via. Some of the messages share one: together they are one transaction."""
    found = re.search(rb"branch\s*=\s*([^\s;,]+)", message, re.IGNORECASE)
    return found[1] if found else message


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_every_message_is_reacted_to_as_the_rfcs_say(start_pbx, scratch, transport):
    programs = []  # each with the branches that it has seen
    sent = []
    for entry in REACTIONS:
        message = (CORPUS / entry["file"]).read_bytes()
        pbx = next((pbx for pbx, seen in programs if branch(message) not in seen), None)
        if pbx is None:
            pbx = start_pbx(folder=scratch / f"pbx{len(programs)}")
            programs.append((pbx, set()))
        next(seen for known, seen in programs if known is pbx).add(branch(message))
        link = connect(pbx, transport)
        link.sendall(message)
        sent.append((entry, link))
    for pbx, _ in programs:
        is_alive(pbx, transport)
    wrong = []
    for entry, link in sent:
        problem = judge(entry, finals(read(link, entry["cls"] == "valid")))
        if problem:
            wrong.append(f"{entry['file']} ({entry['ref']}) over {transport}: {problem}")
        link.close()
    assert not wrong, "\n".join(wrong)
    for pbx, _ in programs:
        assert pbx.metrics()["tandem_panics_total"] == 0
        is_alive(pbx, transport)


def test_who_has_nothing_more_to_say_still_hears_the_answer(pbx):
    with connect(pbx, "tcp") as link:
        link.sendall(probe(link, "tcp"))
        link.shutdown(socket.SHUT_WR)
        assert b"SIP/2.0 200 " in link.recv(65536)
        assert link.recv(65536) == b"", "the connection stays open"


def test_who_cannot_be_followed_is_told_before_the_connection_closes(pbx):
    """Where the next message begins cannot be known after a bad Content-Length."""
    with connect(pbx, "tcp") as link:
        link.sendall((CORPUS / "rfc4475/ncl.dat").read_bytes())
        assert b"SIP/2.0 400 " in link.recv(65536)
        assert link.recv(65536) == b"", "the connection stays open"
