"""The tests that need a device mapper and lvm of their own, all in one guest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lvm.watching import Stuck, watch
from running import wait_until
from support import ROOT, environment, missing

LACKING = 77


def test_in_the_guest() -> None:
    try:
        status, output = watch([ROOT / "tests/lvm/run"], environment())
    except Stuck as error:
        print(error.output)
        pytest.fail(f"the guest: {error}")
    if status == LACKING:
        missing(output.strip())
    print(output)
    if status or " passed" not in output:
        pytest.fail(f"the tests in the guest ended with status {status}")


def stand_in(place: Path, text: str) -> Path:
    """A program that takes the place of tests/lvm/run."""
    program = place / "run"
    program.write_text(f"#!/bin/bash\n{text}\n")
    program.chmod(0o755)
    return program


def test_a_guest_that_speaks_may_take_as_long_as_it_likes(tmp_path: Path) -> None:
    program = stand_in(tmp_path, "for n in {1..12}; do echo $n; sleep 0.5; done; exit 3")
    assert watch([program], environment(), silence=4) == (3, "".join(f"{n}\n" for n in range(1, 13)))


@pytest.mark.parametrize(
    "text, reason",
    [
        ("echo booting; echo $$ >pid; sleep 1000 | cat", "no line for 2 seconds"),
        ("echo booting; echo $$ >pid; while printf .; do sleep 0.1; done", "no line for 2 seconds"),
        ("echo booting; echo $$ >pid; while echo .; do sleep 0.1; done", "no end after 4 seconds"),
    ],
    ids=["silent", "no-whole-line", "for-ever"],
)
def test_a_guest_that_is_stuck_is_ended(text: str, reason: str, tmp_path: Path) -> None:
    program = stand_in(tmp_path, f"cd {tmp_path}\n{text}")
    with pytest.raises(Stuck, match=f"^{reason}$") as caught:
        watch([program], environment(), silence=2, limit=4)
    assert caught.value.output.startswith("booting\n")
    pid = (tmp_path / "pid").read_text().strip()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the program")
