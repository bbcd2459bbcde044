"""Short form for every run of the tests, full form for a run by hand."""

import os

FULL = os.environ.get("JITCONV_RELIABILITY") == "full"
