"""Settings for the whole suite."""

from __future__ import annotations

import os

from hypothesis import settings

# A busy machine is no bug, so examples have no deadline. In CI the examples are the same each
# time: what landed does not fail for somebody else's change.
settings.register_profile("penstock", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("penstock")
