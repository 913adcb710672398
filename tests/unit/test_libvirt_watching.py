"""What looks after a backup job of libvirt while it runs: the process that watches it, and the end of its readers."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import wait_until

from qbtools.errors import Failed
from qbtools.hosts.libvirt import readers, watching
from qbtools.hosts.libvirt.holding import Holds
from qbtools.hosts.libvirt.virsh import Virsh
from qbtools.volumes.marks import Mark


def test_it_looks_again_until_it_is_over(tmp_path: Path) -> None:
    """An error does not end it, and the process that started it need not wait."""
    log = tmp_path / "log"
    ours, theirs = os.pipe()

    def look() -> bool:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        turn = len(log.read_text().split())
        if turn == 1:
            raise Failed("libvirt does not answer")
        return turn < 3

    watching.start(look)
    os.close(theirs)
    assert os.read(ours, 1) == b""
    os.close(ours)
    wait_until(lambda: log.exists() and len(log.read_text().split()) == 3, "three looks")
    (process,) = set(log.read_text().split())
    assert os.waitpid(int(process), 0)[1] == 0


@contextmanager
def process(word: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits, with this argument."""
    found = subprocess.Popen(["bash", "-c", "read", "-", word, "more"], stdin=subprocess.PIPE)
    wait_until(lambda: word.encode() in Path(f"/proc/{found.pid}/cmdline").read_bytes(), "it runs")
    try:
        yield found
    finally:
        found.communicate()


def test_readers_are_ended_by_the_socket_that_they_name() -> None:
    with process("nbd:nbd+unix:///vda?socket=/h/a/socket") as reader, process("?socket=/h/a/socket2") as other:
        readers.end_all("?socket=/h/a/socket")
        assert reader.wait() == -signal.SIGKILL and other.poll() is None


def test_a_reader_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_PATIENCE", 0.1)
    monkeypatch.setattr(os, "kill", lambda _pid, _number: None)
    with process("?socket=/h/b/socket") as reader:
        with pytest.raises(Failed, match=f"^process {reader.pid} does not end, even after SIGKILL$"):
            readers.end_all("?socket=/h/b/socket")


def test_it_ends_when_the_job_is_released_and_its_directory_is_gone(tmp_path: Path) -> None:
    place = tmp_path / "holds"
    assert not Holds(Virsh("test:///default"), str(place), lambda _: None)._look("work", "uuid", str(Mark.own()), 1)
    assert not place.exists(), "it is not made again"
