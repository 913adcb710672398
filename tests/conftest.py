"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine must not fail a test.
settings.register_profile("qbtools", settings(), deadline=None)
settings.load_profile("qbtools")
