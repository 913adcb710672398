"""Tests that run in the guest which tests/lvm/run boots, and nowhere else."""

from __future__ import annotations

import os

import pytest

if os.environ.get("QB_GUEST") != "1":
    collect_ignore_glob = ["*"]


@pytest.fixture(scope="session")
def vg(worker_id: str) -> str:
    """A group with a thin pool of 512 MiB, `pool`, and half a GiB beside it; each worker of xdist has its own."""
    from lvm import guest

    name = guest.new_group("vg" if worker_id == "master" else f"vg{worker_id}", 1 << 30)
    guest.pool(f"{name}/pool", 512 * guest.MiB)
    return name
