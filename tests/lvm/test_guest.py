"""The tests that need a device mapper and lvm of their own, all in one guest; and how a guest ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from base64 import b64decode
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
from guests import boot_disk
from libvirtd import disk
from libvirtsite import Site, raw
from lvm.watching import Stuck, watch
from running import wait_until
from support import ROOT, environment, missing, need

LACKING = 77
NAME = "qbtest-crossing"


def from_libvirt(site: Site) -> tuple[Path, bytes]:
    """An archive of a machine of libvirt, and what its disk holds."""
    image = boot_disk(site.host.place / "images/boot.qcow2")
    data = raw(image)
    site.settings |= {"QB_PASSPHRASE_COMMAND": "echo secret"}
    site.host.define(NAME, disk(image, "vda", "qcow2"))
    archive = site.save(f"--host=libvirt:{site.host.uri}")
    site.host.clean()
    return archive, data


def to_libvirt(site: Site, output: str, data: bytes) -> None:
    """The archive that comes out of the guest gives the machine back."""
    pieces = re.findall("^guest: archive: (.*)$", output, re.MULTILINE)
    (site.place / "back.qb").write_bytes(b64decode("".join(pieces)))
    assert site.restore(site.place / "back.qb") == []
    (uuid,) = site.host.uuids()
    image = site.images / f"{NAME}-vda.qcow2"
    assert site.xml(uuid).findtext("name") == NAME
    assert sha256(raw(image)).digest() == sha256(data).digest()


def test_in_the_guest(request: pytest.FixtureRequest) -> None:
    """All tests in the guest; and a machine of libvirt goes there, to a thin pool, and comes back to libvirt."""
    words: list[str | Path] = [ROOT / "tests/lvm/run"]
    site, data = None, b""
    if shutil.which("libvirtd") is not None and os.geteuid() == 0:
        site = request.getfixturevalue("site")
        archive, data = from_libvirt(site)
        words.append(f"--crossing={archive}")
    try:
        status, output = watch(words, environment())
    except Stuck as error:
        print(error.output)
        pytest.fail(f"the guest: {error}")
    if status == LACKING:
        missing(output.strip())
    print(output)
    if status or " passed" not in output:
        pytest.fail(f"the tests in the guest ended with status {status}")
    if site is not None:
        to_libvirt(site, output, data)


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


@pytest.mark.parametrize(
    "kernel, status",
    [
        ("exit 1", LACKING),
        (": >$place/started", 1),
        (": >$place/started; echo 5 >$place/status", 5),
        (": >$place/started; echo 0 >$place/status; exit 1", 0),
    ],
    ids=["does-not-start", "dies", "tests-fail", "tests-pass"],
)
def test_only_what_the_guest_says_is_success(kernel: str, status: int, tmp_path: Path) -> None:
    """A program plays user-mode Linux, whose own status means nothing."""
    need("gcc")
    program = tmp_path / "linux.uml"
    program.write_text(
        f'#!/bin/bash\nfor word; do [ "${{word%%=*}}" != qb_place ] || place=${{word#*=}}; done\n{kernel}\n'
    )
    program.chmod(0o755)
    path = f"{tmp_path}:{environment()['PATH']}"
    assert watch([ROOT / "tests/lvm/usermode", ROOT, "true"], environment(PATH=path))[0] == status


@pytest.mark.parametrize("first", ["kernel", "tests"])
def test_no_process_of_a_guest_goes_on_alone(first: str, tmp_path: Path) -> None:
    """Without its kernel its system calls would be those of this machine; without the tests nobody needs it."""
    if shutil.which("linux.uml") is None:  # then the guest is an emulator
        assert watch([ROOT / "tests/lvm/usermode", ROOT, "true"], environment())[0] == LACKING
        return
    text = "import os\nos.fork()\nprint('here', flush=True)\nwhile True: os.getppid()"
    with subprocess.Popen(
        [ROOT / "tests/lvm/usermode", ROOT, sys.executable, "-c", text],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment(TMPDIR=str(tmp_path)),
        start_new_session=True,
    ) as running:
        assert running.stdout is not None
        assert b"here\n" in running.stdout
        kernel = running.pid
        for name in "unshare", "bash", "linux.uml":
            (kernel,) = processes(kernel, name)
        guests = processes(kernel, "linux.uml")
        assert len(guests) > 3
        if first == "kernel":
            os.kill(kernel, signal.SIGKILL)
        else:
            os.killpg(running.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(runs, [kernel, *guests])), "the end of the guest")


def processes(parent: int, wanted: str) -> list[int]:
    """The children of a process that have this name."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = path.read_text().partition("(")[2].rpartition(") ")
            if name == wanted and int(rest.split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False
