"""The protocol of hosts: kept by qb-host-dir and by one in shell; by another with QB_TEST_HOST=NAME:ARGUMENT."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hosts.protocol import Place, Protocol
from support import ROOT

GIVEN = os.environ.get("QB_TEST_HOST", "")


class TestHost(Protocol):
    finishing = not GIVEN
    kills = Protocol.kills if GIVEN else 4  # tests/unit/test_host_local.py kills ours at each step

    @pytest.fixture(params=[GIVEN] if GIVEN else ["dir", "shell"])
    def place(self, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
        name, _, argument = request.param.partition(":")
        found = f"qb-host-{name}"
        if name == "shell":
            found = str(ROOT / "tests/hosts/qb-host-shell")
        elif GIVEN:
            found = shutil.which(found) or found
        return Place(found, argument or str(tmp_path))
