"""Settings of all tests."""

from __future__ import annotations

import ctypes
import gc
import os
import signal

import pytest
from hypothesis import settings
from libvirtd import daemon, libvirt  # noqa: F401 (fixtures)
from libvirtsite import site  # noqa: F401 (a fixture)

# A busy machine must not fail a test.
settings.register_profile("qbtools", settings(), deadline=None)
settings.load_profile("qbtools")

# Who runs the tests under nohup or behind "&" has signals ignored that tests send to their children.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

pytest.register_assert_rewrite("hosts.protocol")

_LIBC = ctypes.CDLL(None)  # now: a test may put something in the place of CDLL
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

LONG = [
    "test_a_user_without_privileges_in_a_fresh_checkout",
    "test_their_tests_pass",
    "test_every_program_is_installed_and_is_of_this_version",
    "test_the_examples_of_a_page",
    "test_every_session_prints_what_the_readme_says",
    "test_what_it_picks_on_a_large_machine_is_read",
]
"""Tests that take many seconds: if one of them started last, everything would wait for it."""


def pytest_configure() -> None:
    """Collecting makes millions of objects, which all stay: looking for garbage among them takes long."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starts the guest first, because it takes the longest time, and the other long tests early.

    Each worker begins with an equal part of the tests, in order. A worker that has no more takes tests from the end of
    another one's part. So long tests are at the beginning of the parts of those workers that do not run the guest.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1:
        return
    long = [item for item in items if item.name.partition("[")[0] in LONG]
    others = [item for item in items if item not in long]
    others.sort(key=lambda item: item.name != "test_in_the_guest")
    items.clear()
    for at in range(workers):
        items += long[at - 1 :: workers - 1] if at else []
        items += others[len(others) * at // workers : len(others) * (at + 1) // workers]


def pytest_runtest_teardown() -> None:
    """What a test runs in this process may have made it the parent of orphans, as qb-run does for itself.

    Nobody waits here for those of later tests. So they would stay zombies, and libvirtd waits long for each of its own.
    """
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Long data is not spelled out: pytest looks at each byte of megabytes, each time that it collects the tests."""
    return f"{len(val)}-long" if isinstance(val, bytes | str) and len(val) > 500 else None
