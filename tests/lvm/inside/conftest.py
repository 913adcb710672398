"""Tests that run in the guest which tests/lvm/run boots, and nowhere else."""

from __future__ import annotations

import os

import pytest

CROSSING = "--crossing"

if os.environ.get("QB_GUEST") != "1":
    collect_ignore_glob = ["*"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(CROSSING, help="an archive from outside, which goes through a thin pool")


@pytest.fixture
def crossing(request: pytest.FixtureRequest) -> str | None:
    """The path of an archive from outside; None if there is none."""
    found: str | None = request.config.getoption(CROSSING)
    return found


@pytest.fixture(scope="session")
def vg() -> str:
    """A group with a thin pool of 512 MiB, `pool`, and half a GiB beside it; each worker has its own."""
    from lvm import guest

    name = f"vg{os.environ['QB_WORKER']}"
    if not guest.disk(name).exists():
        guest.new_group(name, 1 << 30)
        guest.pool(f"{name}/pool", 512 * guest.MiB)
    return name
