"""The simulated trunk: `tandem twilio-sim`."""

import signal

from pbx import CALLER_ID, PROGRAM, TERMINATION, TRUNK_PASSWORD, TRUNK_USER
from process import Process, eventually

# One of the addresses from which the PBX takes calls of its trunk.
ADDRESS = "127.0.4.1"


class Twilio:
    """A running trunk. It checks everything that the PBX does, and tells in the end."""

    def __init__(self, scratch, *arguments, name="twilio"):
        self.process = Process(
            [
                PROGRAM,
                "twilio-sim",
                "--strict",
                "--listen",
                f"{ADDRESS}:0",
                "--termination",
                TERMINATION,
                "--credentials",
                f"{TRUNK_USER}:{TRUNK_PASSWORD}",
                "--number",
                CALLER_ID,
                *arguments,
            ],
            scratch / f"{name}.log",
        )
        self.address = eventually(self.bound)

    def bound(self):
        """the simulated trunk listens"""
        for line in self.output():
            if line.startswith("listening on udp:"):
                return line.removeprefix("listening on udp:")
        assert self.process.is_running(), "\n".join(self.output())
        return None

    def output(self):
        return self.process.log.read_text().splitlines()

    def verdict(self):
        """Asserts that the PBX kept every rule. Returns what there is to say of each call."""
        status = self.process.stop(signal.SIGINT)
        said = self.output()
        assert status == 0, "the PBX broke rules of the trunk:\n" + "\n".join(said)
        return [line for line in said if line.startswith("call: ")]
