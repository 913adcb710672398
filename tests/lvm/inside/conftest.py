"""Tests that run in the guest which tests/lvm/run boots, and nowhere else."""

from __future__ import annotations

import os

import pytest

if os.environ.get("QB_GUEST") != "1":
    collect_ignore_glob = ["*"]


@pytest.fixture(scope="session")
def vg() -> str:
    """A group with a thin pool of 512 MiB, `pool`, and half a GiB beside it; each worker has its own."""
    from lvm import guest

    name = f"vg{os.environ['QB_WORKER']}"
    if not guest.disk(name).exists():
        guest.new_group(name, 1 << 30)
        guest.pool(f"{name}/pool", 512 * guest.MiB)
    return name
