"""The packets that the unit tests of SRTP are measured by are libsrtp's."""

import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).parents[1] / "srtp"


def test_the_committed_packets_are_libsrtps():
    made = subprocess.run([sys.executable, FOLDER / "vectors.py"], capture_output=True, text=True, check=True)
    assert made.stdout == (FOLDER / "libsrtp.txt").read_text()
