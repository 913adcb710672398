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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starts the guest first: it takes the longest time, so everything would wait for it at the end."""
    items.sort(key=lambda item: item.name != "test_in_the_guest")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Long data is not spelled out: pytest looks at each byte of megabytes, each time that it collects the tests."""
    return f"{len(val)}-long" if isinstance(val, bytes | str) and len(val) > 500 else None
