"""What the tests in the guest share: volume groups, and our programs run without paying for an interpreter's start.

Only there: everything here changes the device mapper and lvm of the machine it runs on.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, TracebackType
from typing import NamedTuple

from product import module_of

from qbtools.commands import cli

PLACE = Path("/run/qb-guest")
"""A file system in memory, for disks and whatever else is to be written."""

MiB = 1 << 20


def call(*argv: str | Path) -> str:
    """What a program of the system prints; the test fails where it fails."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


class _Lvm:
    """lvm, begun once for all commands of the tests: its begin takes ten times as long as a command."""

    END = b"'no-such-command'.  Try 'help'.\n"
    """The end of what it says about a command that does not exist, so about all before it."""

    def __init__(self) -> None:
        streams = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
        self._process = subprocess.Popen(["lvm"], bufsize=0, env=_ENVIRONMENT, **streams)

    def run(self, words: Sequence[str | Path]) -> tuple[str, list[str]]:
        """What a command prints, and its errors: the lines on stderr that are not warnings.

        What it has printed is written out before it complains about the next command.
        """
        process = self._process
        assert process.stdin and process.stdout and process.stderr
        line = " ".join(map(str, words))
        process.stdin.write(f"{line}\nno-such-command\n".encode())
        said = b""
        while not said.endswith(self.END):
            more = os.read(process.stderr.fileno(), 1 << 16)
            assert more, f"lvm has ended: {line}"
            said += more
        printed = b""
        while select.select([process.stdout], [], [], 0)[0]:
            printed += os.read(process.stdout.fileno(), 1 << 16)
        errors = [text for text in said.decode().splitlines() if text.strip() and "WARNING" not in text]
        return printed.decode(), errors[:-1]


_ENVIRONMENT = dict(os.environ)
_running: list[_Lvm] = []


def _lvm(words: Sequence[str | Path]) -> tuple[str, list[str]]:
    if not _running:
        _running.append(_Lvm())
    return _running[0].run(words)


def lvm(*words: str | Path) -> str:
    """What a command of lvm prints; the test fails where it fails. An option -a would hold for later commands too."""
    printed, errors = _lvm(words)
    assert not errors, f"{words}: {errors}"
    return printed


def dmsetup(command: str, name: str, *lines: str) -> None:
    """Runs dmsetup on a device, with a table where the command takes one."""
    table = ("--table", "\n".join(lines)) if lines else ()
    call("dmsetup", command, "--noudevrules", "--noudevsync", name, *table)
    if command == "create":
        call("dmsetup", "mknodes", name)  # there is no udev that would


def disk(name: str) -> Path:
    """The file in memory in which a disk of new_disk() lies."""
    return PLACE / f"disk-{name}"


def new_disk(name: str, size: int) -> Path:
    """A loop device over a sparse file in memory; it stays as long as the guest does."""
    image = disk(name)
    image.touch()
    os.truncate(image, size)
    return Path(call("losetup", "--find", "--show", image).strip())


def new_group(name: str, size: int) -> str:
    """A volume group on a new disk; it stays as long as the guest does."""
    lvm("vgcreate", "-qq", "-y", name, new_disk(name, size))
    return name


@contextmanager
def group(name: str, size: int) -> Iterator[str]:
    """A volume group on a new disk. All is gone, and its memory free again, when the `with` ends."""
    device = new_disk(name, size)
    try:
        lvm("vgcreate", "-qq", "-y", name, device)
        yield name
        lvm("vgremove", "-qq", "-ff", "-y", name)
    finally:
        call("losetup", "--detach", device)
        disk(name).unlink()


def pool(full: str, size: int, *options: str) -> None:
    """A thin pool, GROUP/POOL."""
    vg, name = full.split("/")
    lvm("lvcreate", "-qq", "-y", "--type", "thin-pool", "-L", f"{size}b", *options, "-n", name, vg)


def thin(full: str, size: int, pool: str = "pool") -> Path:
    """A thin volume, GROUP/NAME; its device."""
    vg, name = full.split("/")
    lvm("lvcreate", "-qq", "-y", "-V", f"{size}b", "-T", f"{vg}/{pool}", "-n", name)
    return Path("/dev") / full


def thick(full: str, size: int, *options: str) -> Path:
    """A thick volume, GROUP/NAME; its device."""
    vg, name = full.split("/")
    lvm("lvcreate", "-qq", "-y", "-W", "n", "-L", f"{size}b", *options, "-n", name, vg)
    return Path("/dev") / full


def remove(*full: str) -> None:
    """Removes volumes, if they are there."""
    _lvm(("lvremove", "-qq", "-f", "-y", *full))


def volumes(vg: str) -> set[str]:
    """The names of a group's volumes."""
    return set(lvm("lvs", "--noheadings", "-o", "lv_name", vg).split())


def seeing_only(vg: str, place: Path) -> str:
    """A directory for LVM_SYSTEM_DIR with which lvm knows of this group only, whatever other tests do meanwhile."""
    device = call("losetup", "--noheadings", "--output", "NAME", "--associated", disk(vg)).strip()
    place.mkdir()
    text = (Path(os.environ["LVM_SYSTEM_DIR"]) / "lvm.conf").read_text()
    (place / "lvm.conf").write_text(f'{text}\ndevices/filter=["a|^{device}$|", "r|.*|"]\n')
    return str(place)


def ours(vg: str) -> set[str]:
    """The names of a group's active volumes that are ours: snapshots, and what is not whole yet. Asks no lvm."""
    return {device.name.removeprefix(f"{vg}-") for device in Path("/dev/mapper").glob(f"{vg}-qbtools_*")}


def write(device: Path, offset: int, data: bytes) -> None:
    """Writes to a device, past the page cache where the range is whole pages."""
    direct = os.O_DIRECT if offset % 4096 == 0 == len(data) % 4096 else 0
    import mmap

    fd = os.open(device, os.O_WRONLY | direct)
    try:
        with mmap.mmap(-1, MiB) as buffer, memoryview(buffer) as memory:  # aligned as O_DIRECT needs it
            for at in range(0, len(data), MiB):
                piece = data[at : at + MiB]
                memory[: len(piece)] = piece
                assert os.pwrite(fd, memory[: len(piece)], offset + at) == len(piece)
        os.fsync(fd)
    finally:
        os.close(fd)


def read(device: Path, offset: int, size: int) -> bytes:
    """Reads from a device."""
    with device.open("rb", buffering=0) as file:
        file.seek(offset)
        return file.read(size)


class Stream(NamedTuple):
    """A volume stream, taken apart."""

    size: int
    extents: list[tuple[int, int]]
    data: bytes
    ended: bool

    @classmethod
    def parse(cls, stream: bytes) -> Stream:
        head, _, rest = stream.partition(b"\n\n")
        first, size, count, *lines = head.decode().split("\n")
        assert first == "qb-volume 1"
        extents = [(int(line.split()[0]), int(line.split()[1])) for line in lines]
        assert count == f"extents {len(extents)}"
        total = sum(length for _, length in extents)
        end = b"end %d\n" % total
        ended = rest[total:] == end
        return cls(int(size.removeprefix("size ")), extents, rest[:total], ended)

    def at(self, offset: int, size: int) -> bytes:
        """The bytes of the volume at an offset, all in one extent or all in a hole."""
        begin = 0
        for start, length in self.extents:
            if start <= offset < start + length:
                return self.data[begin + offset - start :][:size]
            begin += length
        return bytes(size)


class Ended(NamedTuple):
    """How a program ended: its exit status (128 + n for signal n) and what it wrote."""

    status: int
    stdout: bytes
    stderr: str


def loaded(program: str) -> ModuleType:
    """The module of one of our programs."""
    return importlib.import_module(f"qbtools.commands.{module_of(program)}")


class Program:
    """One of our programs, forked from here with all of it loaded: real in everything but its start.

    Its stdout is a file, or a pipe that the test may leave unread for as long as it likes; its stdin is a file that
    holds data, or a pipe, `feed`. A context manager: it is killed at the end if it still runs.
    """

    def __init__(
        self,
        name: str,
        *arguments: str | Path,
        data: bytes = b"",
        piped: bool = False,
        fed: bool = False,
        **changes: str,
    ) -> None:
        module = loaded(name)
        self._files = [tempfile.TemporaryFile(dir=PLACE) for _ in range(3)]  # noqa: SIM115
        self._files[0].write(data)
        self._files[0].seek(0)
        self.pipe, theirs = os.pipe() if piped else (-1, -1)
        fed_end, self.feed = os.pipe() if fed else (-1, -1)
        self.pid = os.fork()
        if not self.pid:
            try:
                os.setsid()
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
                    signal.signal(number, signal.SIG_DFL if number != signal.SIGPIPE else signal.SIG_IGN)
                fds = [file.fileno() for file in self._files]
                fds[0] = fed_end if fed else fds[0]
                fds[1] = theirs if piped else fds[1]
                for fd, source in enumerate([os.dup(fd) for fd in fds]):
                    os.dup2(source, fd)
                os.closerange(3, 1024)
                os.environ.update(changes)
                cli.run(name, module.DOC, module.main, [str(word) for word in arguments])
            finally:
                os._exit(99)
        for fd in (theirs, fed_end):
            if fd >= 0:
                os.close(fd)
        self._ended: Ended | None = None

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ended is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def take(self, size: int) -> bytes:
        """Exactly size bytes of a piped stdout."""
        data = b""
        while len(data) < size:
            more = os.read(self.pipe, size - len(data))
            assert more, f"it ended after {len(data)} bytes: {self.wait()}"
            data += more
        return data

    def give(self, data: bytes) -> None:
        """Writes data to its stdin, where that is a pipe. BrokenPipeError where nobody reads any more."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.feed, view) :]

    def wait(self, before: bytes = b"") -> Ended:
        """Closes its stdin, reads what is left of a pipe, and waits for the end. before: what was taken already."""
        if self._ended is None:
            if self.feed >= 0:
                os.close(self.feed)
                self.feed = -1
            rest = [before]
            if self.pipe >= 0:
                while more := os.read(self.pipe, 1 << 20):
                    rest.append(more)
                os.close(self.pipe)
            _, code = os.waitpid(self.pid, 0)
            status = os.waitstatus_to_exitcode(code)
            for file in self._files:
                file.seek(0)
            stdout = b"".join(rest) if self.pipe >= 0 else self._files[1].read()
            self._ended = Ended(128 - status if status < 0 else status, stdout, self._files[2].read().decode())
        return self._ended


def program(name: str, *arguments: str | Path, data: bytes = b"", **changes: str) -> Ended:
    """Runs one of our programs to its end."""
    with Program(name, *arguments, data=data, **changes) as running:
        return running.wait()


def volread(*arguments: str | Path) -> Stream:
    """The stream that qb-volread makes; the test fails where it fails, or says anything."""
    ended = program("qb-volread", *arguments)
    assert (ended.status, ended.stderr) == (0, "")
    stream = Stream.parse(ended.stdout)
    assert stream.ended
    return stream
