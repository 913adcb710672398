"""Marks: who owns a temporary object, and when its owner has certainly ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import ROOT, missing

from qbtools.errors import Failed
from qbtools.volumes import kernel, marks
from qbtools.volumes.marks import Mark


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"])


def test_the_text_fits_a_tag_and_a_file_name_and_is_read_again() -> None:
    mark = Mark.own()
    assert re.fullmatch("qbtools-[0-9a-f]{8}-[0-9a-f]{32}-[0-9]+-[0-9]+-[0-9]+", str(mark))
    assert len(str(mark)) < 120
    assert Mark.parse(str(mark)) == mark
    assert mark.pid == os.getpid()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "qbtools-",
        "qbtools-0000000-00000000000000000000000000000000-1-1-1",
        "qbtools-00000000-00000000000000000000000000000000-1-1",
        "qbtools-00000000-00000000000000000000000000000000-1-1-01",
        "qbtools-00000000-00000000000000000000000000000000-1-1-1-1",
        "qbtools-0000000G-00000000000000000000000000000000-1-1-1",
        "qbtools-00000000-00000000000000000000000000000000-1-1-1\n",
        "xqbtools-00000000-00000000000000000000000000000000-1-1-1",
    ],
)
def test_what_is_no_mark(text: str) -> None:
    assert Mark.parse(text) is None


def test_a_living_process_is_not_dead_and_a_killed_one_is() -> None:
    assert not Mark.own().dead()
    process = sleeper()
    mark = Mark.of(process.pid)
    assert not mark.dead()
    process.kill()
    while Path(f"/proc/{process.pid}/stat").read_text().split()[2] != "Z":
        time.sleep(0.01)
    assert mark.dead(), "it only waits to be waited for"
    process.wait()
    assert mark.dead()
    with pytest.raises(Failed, match="there is no process"):
        Mark.of(process.pid)


def test_a_program_whose_name_looks_like_the_fields_behind_it(tmp_path: Path) -> None:
    link = tmp_path / "a) Z 1 1 (b"
    link.symlink_to("/bin/sleep")
    process = subprocess.Popen([link, "600"])
    try:
        mark = Mark.of(process.pid)
        assert not mark.dead()
        assert mark.start >= Mark.own().start
    finally:
        process.kill()
        process.wait()


def test_another_process_with_the_same_number() -> None:
    mark = Mark.own()
    assert mark._replace(start=mark.start - 1).dead()


def test_another_boot_is_dead_but_another_host_is_not_known() -> None:
    mark = Mark.own()._replace(boot="0" * 32)
    assert mark.dead()
    assert not mark._replace(host="00000000").dead()


def test_another_pid_namespace_is_not_known() -> None:
    mark = Mark.own()._replace(start=1, pidns=1)
    assert not mark.dead()
    assert mark._replace(boot="0" * 32).dead()


def test_a_host_without_machine_id(monkeypatch: pytest.MonkeyPatch) -> None:
    real = kernel.text
    monkeypatch.setattr(kernel, "text", lambda path: "" if path == "/etc/machine-id" else real(path))
    mark = Mark.own()
    assert re.fullmatch("[0-9a-f]{8}", mark.host)
    assert Mark.parse(str(mark)) == mark


def test_a_proc_of_another_namespace_proves_nothing() -> None:
    """In a new PID namespace with the old /proc our numbers mean other processes there."""
    code = (
        "import os; from qbtools.volumes.marks import Mark; m = Mark.own();"
        "print(m.pid == os.getpid(), m.dead(), m._replace(start=1, pid=99999).dead())"
    )
    argv = ["unshare", "--pid", "--fork", sys.executable, "-c", code]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr:
        missing("no new PID namespace can be made here")
    assert done.stdout.split() == ["True", "False", "False"], done.stderr


def test_temporary_names() -> None:
    names = {marks.temporary_name() for _ in range(100)}
    assert len(names) == 100
    assert all(marks.is_temporary_name(name) and len(name) == 23 for name in names)
    assert not marks.is_temporary_name("qbtools_mine")
    assert not marks.is_temporary_name(f"{names.pop()}\n")
