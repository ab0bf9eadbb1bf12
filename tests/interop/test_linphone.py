"""linphonec registers, calls and is called."""

import numpy as np
import pytest
import sound
from linphone import Linphone
from load import free_port

# Its media leaves from here, wherever its signalling is bound.
OWN = "127.0.0.1"


@pytest.fixture
def linphone(pbx, scratch):
    phone = Linphone(scratch, pbx, "1003", OWN, free_port(OWN), free_port(OWN))
    phone.ask("status register", "registered, identity=")
    phone.order("soundcard use files")
    yield phone
    phone.close()


def says(linphone):
    """Makes linphonec speak; returns what it says."""
    voice = sound.voice(seed=1003)
    path = linphone.folder / "linphone-says.wav"
    sound.save(path, np.tile(voice, 8))
    linphone.order(f"play {path}")
    return voice


def test_it_registers(pbx, linphone):
    (row,) = [row for row in pbx.ask("phones") if row["contacts"]]
    assert row["user"] == "1003"
    assert "inphone" in row["contacts"][0]["user_agent"]


def test_it_calls(pbx, linphone, start_phone):
    callee = start_phone("pjsua", pbx, "1001")
    linphone.order(f"call sip:1001@{pbx.address()}")
    callee.wait("incoming")
    callee.answer()
    callee.wait("established")
    voice = says(linphone)
    heard = callee.hear(3)
    assert sound.likeness(voice, heard[-2 * sound.RATE :]) >= 0.95
    linphone.order("terminate")
    callee.wait("closed")
    (cdr,) = pbx.cdrs()
    assert (cdr["caller"]["user"], cdr["ending"]["by"]) == ("1003", "caller")


def test_it_is_called(pbx, linphone, start_phone):
    caller = start_phone("baresip", pbx, "1001")
    caller.dial("1003")
    caller.wait("ringing")
    linphone.order("answer")
    caller.wait("established")
    heard = linphone.folder / "linphone-heard.wav"
    linphone.order(f"record {heard}")
    voice = says(linphone)
    assert sound.likeness(voice, caller.hear(3)[-2 * sound.RATE :]) >= 0.95
    caller.hang_up()
    caller.wait("closed")
    pbx.cdrs()
    linphone.close()
    samples = sound.load(heard)[sound.RATE :]
    assert sound.likeness(caller.says, samples[: 2 * sound.RATE]) >= 0.95
