"""A softphone in a process of its own, as the tests see it."""

import json
import pathlib
import queue
import subprocess
import sys
import threading
import time

import sound
from process import PATIENCE, Process

PEERS = pathlib.Path(__file__).parent / "peers"
# How often a sound is listened to before it is not as it should be.
TRIES = 8


class PhoneError(AssertionError):
    """The telephone did not do what it should have done."""


class Phone:
    """One telephone. What happens to it comes in a queue; `wait` takes out what is waited for."""

    def __init__(self, kind, scratch, user, password, pbx, own, transport="udp", codecs=None, ca=None, srtp=None):
        self.name = f"{kind}-{user}"
        self.user = user
        self.scratch = scratch
        self.says = sound.voice(seed=int(user))
        says = scratch / f"{self.name}-says.wav"
        sound.save(says, self.says)
        wanted = {
            "user": user,
            "password": password,
            "pbx": pbx,
            "says": str(says),
            "own": own,
            "transport": transport,
            "codecs": codecs or ["pcmu", "pcma"],
            # Whom it trusts over TLS.
            "ca": str(ca) if ca else None,
            "srtp": srtp,
        }
        self.process = Process(
            [sys.executable, PEERS / f"{kind}_phone.py", json.dumps(wanted)],
            scratch / f"{self.name}.log",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.told = queue.Queue()
        self.history = []
        self.recordings = 0
        threading.Thread(target=self._read, daemon=True).start()
        self.address = self.wait("ready").get("address")

    def _read(self):
        for line in self.process.popen.stdout:
            self.told.put(json.loads(line))
        self.told.put({"event": "gone"})

    def _take(self, is_wanted, what, patience):
        for index, known in enumerate(self.history):
            if is_wanted(known):
                return self.history.pop(index)
        end = time.monotonic() + patience
        while True:
            try:
                told = self.told.get(timeout=max(0, end - time.monotonic()))
            except queue.Empty:
                raise PhoneError(f"{self.name}: no {what}; there was {self.history}") from None
            if is_wanted(told):
                return told
            self.history.append(told)
            if told.get("event") == "gone":
                raise PhoneError(f"{self.name}: its process is gone; see {self.process.log}")

    def wait(self, event, patience=PATIENCE):
        """Waits until this has happened, now or since it was last waited for."""
        return self._take(lambda told: told.get("event") == event, event, patience)

    def has(self, event):
        """Whether this has happened since it was last waited for."""
        while not self.told.empty():
            self.history.append(self.told.get())
        return any(told.get("event") == event for told in self.history)

    def forget(self, event):
        """Forgets that this has happened."""
        self.has(event)
        self.history = [told for told in self.history if told.get("event") != event]

    def do(self, what, **with_what):
        self.process.popen.stdin.write(json.dumps({"do": what} | with_what) + "\n")
        self.process.popen.stdin.flush()
        told = self._take(lambda told: "done" in told or "failed" in told, what, PATIENCE)
        if "failed" in told:
            raise PhoneError(f"{self.name}: {told['failed']}")

    def register(self):
        self.do("register")
        if self.name.startswith("pjsua"):
            self.wait("registered")

    def dial(self, number):
        self.do("dial", to=number)

    def answer(self):
        self.do("answer")

    def hang_up(self):
        self.do("hangup")

    def hear(self, seconds=2.0):
        """What it hears from now on."""
        self.recordings += 1
        path = self.scratch / f"{self.name}-heard{self.recordings}.wav"
        self.do("listen", to=str(path))
        time.sleep(seconds)  # sound takes its time
        self.do("heard", to=str(path))
        return sound.load(path)

    def digits(self, count, patience=PATIENCE):
        """The next so many digits that it is sent."""
        return "".join(self.wait("dtmf", patience)["digit"] for _ in range(count))

    def close(self):
        if self.process.is_running():
            self.process.popen.stdin.close()
            try:
                self.process.popen.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()


def hears(phone, other, seconds=2.0, at_least=0.95, tries=TRIES):
    """Asserts that a telephone hears what another says, undamaged for so many seconds.

    A machine that is taken away for a moment lets frames come too late; what is lost or changed on the way
    is so each time.
    """
    likeness = []
    while len(likeness) < tries:
        likeness.append(sound.likeness(other.says, phone.hear(seconds)))
        if likeness[-1] >= at_least:
            return
    raise AssertionError(f"{phone.name} hears {other.name} with only {likeness}")


def hears_silence(phone, tries=TRIES):
    """Asserts that a telephone hears nothing for a second, once its buffers are empty."""
    heard = []
    while len(heard) < tries:
        heard.append(sound.loudness(phone.hear(1.0)))
        if heard[-1] < 50:
            return
    raise AssertionError(f"{phone.name} hears something: loudness {heard}")
