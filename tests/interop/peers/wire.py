"""How the tests talk with a telephone in its own process: a line of JSON each way.

The tests order `{"do": "dial", ...}`; the telephone answers `{"done": "dial"}` or `{"failed": why}`,
and tells by itself what happens to it: `{"event": "incoming", ...}`.
"""

import json
import os
import sys

# The telephone's libraries print on standard output as they like; that goes where errors go.
_out = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def tell(**what):
    _out.write(json.dumps(what) + "\n")


def orders():
    for line in sys.stdin:
        yield json.loads(line)
