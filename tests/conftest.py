"""Settings of all tests."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

# A busy machine must not fail a test.
settings.register_profile("qbtools", settings(), deadline=None)
settings.load_profile("qbtools")

# Who runs the tests under nohup or behind "&" has signals ignored that tests send to their children.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

pytest.register_assert_rewrite("hosts.protocol")
