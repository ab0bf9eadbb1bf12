"""linphonec registers, calls and is called."""

import numpy as np
import pytest
import sound
from linphone import Linphone
from load import free_port
from phone import hears

# Its media leaves from here, wherever its signalling is bound.
OWN = "127.0.0.1"


@pytest.fixture
def linphone(pbx, scratch):
    phone = Linphone(scratch, pbx, "1003", OWN, free_port(OWN), free_port(OWN, pair=True))
    phone.ask("status register", "registered, identity=")
    phone.order("soundcard use files")
    yield phone
    phone.close()


def speak(linphone):
    """Makes linphonec speak, for longer than anybody listens."""
    linphone.says = sound.voice(seed=1003)
    path = linphone.folder / "linphone-says.wav"
    sound.save(path, np.tile(linphone.says, 20))
    linphone.order(f"play {path}")


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
    speak(linphone)
    hears(callee, linphone)
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
    speak(linphone)
    hears(caller, linphone, 3)
    caller.hang_up()
    caller.wait("closed")
    pbx.cdrs()
    linphone.close()
    samples = sound.load(heard)
    starts = range(0, len(samples) - 2 * sound.RATE, sound.RATE // 2)
    likeness = [sound.likeness(caller.says, samples[start : start + 2 * sound.RATE]) for start in starts]
    assert max(likeness, default=0) >= 0.95, likeness
