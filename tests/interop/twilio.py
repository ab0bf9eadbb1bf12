"""The simulated trunk: `tandem twilio-sim`."""

import json
import re

from pbx import CALLER_ID, PROGRAM, TERMINATION, TRUNK_PASSWORD, TRUNK_USER
from process import Process, eventually
