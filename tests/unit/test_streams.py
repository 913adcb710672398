"""Exact reads, complete writes, copies by splice and by hand."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qbtools.descriptors import left_to_read, widen_pipe, write_fd
from qbtools.errors import Damaged, Failed, Truncated
from qbtools.streams import BLOCK, SPOILT, SPOILT_WITHIN, Reader, Writer

DATA = bytes(range(251)) * 40_000  # 10 MB; its period is prime, so that a block out of place shows


class Dribble:
    """An input without descriptor that gives at most `step` bytes per read."""

    def __init__(self, data: bytes, step: int) -> None:
        self._file = io.BytesIO(data)
        self._step = step

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        return self._file.readinto(memoryview(buffer)[: self._step])


class Broken:
    """An input and output on which everything fails with one errno."""

    def __init__(self, number: int) -> None:
        self._number = number

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        raise OSError(self._number, os.strerror(self._number))

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        raise OSError(self._number, os.strerror(self._number))


@contextlib.contextmanager
def in_thread(work: Callable[[], object]) -> Iterator[None]:
    """The other end of a pipe."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def drain(fd: int, result: bytearray, step: int = 1 << 16) -> None:
    """Reads a descriptor up to EOF and closes it."""
    while data := os.read(fd, step):
        result += data
    os.close(fd)


def fill(fd: int, data: bytes, step: int = 1 << 16) -> None:
    """Writes data to a blocking descriptor in steps and closes it."""
    for at in range(0, len(data), step):
        write_fd(fd, data[at : at + step])
    os.close(fd)


def file_of(path: Path, data: bytes) -> io.FileIO:
    path.write_bytes(data)
    return io.FileIO(path)


# --- reading ---


@pytest.mark.parametrize("step", [1, 2, 7, 1 << 20])
def test_short_reads_do_not_show(step: int) -> None:
    reader = Reader(Dribble(b"first\n" + b"x" * 100 + b"last", step), block=16)
    assert reader.read_line(10) == b"first\n"
    assert reader.read_exact(40) == b"x" * 40
    view = memoryview(bytearray(50))
    assert reader.read_into(view) == 50 and view == b"x" * 50
    reader.skip(10)
    assert not reader.at_eof()
    assert reader.read_up_to(100) == b"last"
    assert reader.at_eof()
    assert reader.position == 110


def test_the_end_of_the_input() -> None:
    assert Reader(io.BytesIO(b"")).at_eof()
    assert Reader(io.BytesIO(b"")).read_some(1) == b""
    assert Reader(io.BytesIO(b"")).read_line(9) == b""
    assert Reader(io.BytesIO(b"")).read_exact(0) == b""
    assert Reader(io.BytesIO(b"ab")).read_up_to(3) == b"ab"
    view = memoryview(bytearray(3))
    assert Reader(io.BytesIO(b"ab")).read_into(view) == 2
    assert Reader(io.BytesIO(b"ab")).read_line(9) == b"ab"


@pytest.mark.parametrize(
    "use",
    [
        lambda reader: reader.read_exact(4),
        lambda reader: reader.skip(4),
        lambda reader: reader.copy_to(Writer(io.BytesIO()), 4),
    ],
)
def test_an_input_that_ends_too_early(use: Callable[[Reader], object]) -> None:
    with pytest.raises(Truncated, match="^the map ends too early$"):
        use(Reader(io.BytesIO(b"abc"), "the map"))
    reader = Reader(io.BytesIO(b"abc"), "the map")
    assert reader.read_line(1) == b"a"  # so that some of it is held
    with pytest.raises(Truncated, match="^the map ends too early$"):
        use(reader)


def test_a_line_is_bounded() -> None:
    reader = Reader(io.BytesIO(b"12345\n12345\n123456\nend"))
    assert reader.read_line(6) == b"12345\n"
    assert reader.read_line(5) == b"12345"
    assert reader.read_line(5) == b"\n"
    assert reader.read_line(6) == b"123456"
    assert reader.read_line(6) == b"\n"
    assert reader.read_line(6) == b"end"


def test_a_line_without_end_takes_no_more_than_a_block() -> None:
    asked = []

    class Endless:
        def readinto(self, buffer: bytearray | memoryview, /) -> int:
            asked.append(len(buffer))
            return len(buffer)

    assert len(Reader(Endless(), block=64).read_line(64)) == 64
    assert sum(asked) <= 128


def test_lines_come_in_bunches() -> None:
    reader = Reader(io.BytesIO(b"a\nbb\n\nccc\nrest"))
    assert reader.read_lines(2, 4) == [b"a", b"bb"]
    assert reader.read_lines(9, 4) == [b"", b"ccc"]
    assert reader.position == 10
    with pytest.raises(Truncated):
        reader.read_lines(1, 5)
    assert reader.read_exact(4) == b"rest"


@pytest.mark.parametrize("step", [1, 3, 100])
def test_lines_are_bounded(step: int) -> None:
    assert Reader(Dribble(b"123\n", step)).read_lines(1, 4) == [b"123"]
    for data in (b"1234\n", b"12345", b"1\n1234\n"):
        reader = Reader(Dribble(data, step))
        with pytest.raises(Damaged, match="line of more than 4 bytes"):
            for _ in range(2):
                reader.read_lines(2, 4)


@pytest.mark.parametrize(("data", "count"), [(b"", 0), (bytes(5), 5), (bytes(200_000), 200_000)])
def test_zeros_to_the_end(data: bytes, count: int) -> None:
    assert Reader(io.BytesIO(data)).read_zeros_to_eof() == count
    for at in {0, len(data) // 2, len(data)}:
        assert Reader(io.BytesIO(data[:at] + b"\1" + data[at:])).read_zeros_to_eof() == -1


@pytest.mark.parametrize("before", [b"", bytes(700), b"more", b"more" * 300_000, SPOILT])
def test_the_rest_of_a_failed_program(before: bytes) -> None:
    """It ends too early, as far as that can be detected, with any data before."""
    for data in (before + SPOILT, bytes(1024) + before + SPOILT):
        with pytest.raises(Truncated, match="^standard input ends too early$"):
            Reader(io.BytesIO(data)).read_zeros_to_eof()
    for data in (SPOILT + b"x", SPOILT[:-1], b"more", b"x" + bytes(SPOILT_WITHIN * 2)):
        assert Reader(io.BytesIO(before + data)).read_zeros_to_eof() == -1
    far = b"x" + bytes(SPOILT_WITHIN * 2) + SPOILT
    assert Reader(io.BytesIO(far)).read_zeros_to_eof() == -1


@pytest.mark.parametrize(
    "use",
    [
        lambda reader: reader.read_exact(1),
        lambda reader: reader.read_some(1),
        lambda reader: reader.read_line(1),
        lambda reader: reader.read_into(memoryview(bytearray(1))),
        lambda reader: reader.skip(1),
        lambda reader: reader.at_eof(),
        lambda reader: reader.copy_rest(Writer(io.BytesIO())),
    ],
)
def test_a_read_error_is_a_failure_and_no_end(use: Callable[[Reader], object]) -> None:
    with pytest.raises(Failed, match="^cannot read the disk: Input/output error$"):
        use(Reader(Broken(errno.EIO), "the disk"))


def test_a_directory_cannot_be_read(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError):  # FileIO refuses at once
            io.FileIO(fd, closefd=False)
    finally:
        os.close(fd)


OPERATIONS = st.tuples(
    st.sampled_from(["exact", "some", "up_to", "into", "line", "skip", "copy", "eof"]), st.integers(1, 40)
)


@settings(max_examples=300, deadline=None)
@given(
    data=st.binary(max_size=300) | st.text("a\n", max_size=300).map(str.encode),
    step=st.integers(1, 50),
    operations=st.lists(OPERATIONS, max_size=30),
)
def test_any_order_of_operations_gives_the_bytes_in_order(
    data: bytes, step: int, operations: list[tuple[str, int]]
) -> None:
    reader = Reader(Dribble(data, step), block=64)
    at = 0
    for name, size in operations:
        left = data[at:]
        if name in ("exact", "skip", "copy") and size > len(left):
            continue
        expected = left[:size]
        if name == "exact":
            got = reader.read_exact(size)
        elif name == "some":
            got = reader.read_some(size)
            assert bool(got) == bool(left) and left.startswith(got) and len(got) <= size
            expected = got
        elif name == "up_to":
            got = reader.read_up_to(size)
        elif name == "into":
            view = memoryview(bytearray(size))
            got = bytes(view[: reader.read_into(view)])
        elif name == "line":
            got = reader.read_line(size)
            expected = expected[: expected.find(b"\n") + 1] if b"\n" in expected else expected
        elif name == "skip":
            reader.skip(size)
            got = expected
        elif name == "copy":
            sink = io.BytesIO()
            reader.copy_to(Writer(sink), size)
            got = sink.getvalue()
        else:
            assert reader.at_eof() == (not left)
            continue
        assert got == expected
        at += len(got)
        assert reader.position == at
    sink = io.BytesIO()
    reader.copy_rest(Writer(sink))
    assert sink.getvalue() == data[at:]


# --- skipping ---


def test_a_file_is_skipped_by_seeking(tmp_path: Path) -> None:
    with file_of(tmp_path / "f", DATA) as file:
        reader = Reader(file)
        assert reader.read_exact(10) == DATA[:10]
        before = file.tell()
        reader.skip(5_000_000)
        assert file.tell() - before == 5_000_010 - before
        assert reader.position == 5_000_010
        assert reader.read_exact(9) == DATA[5_000_010:5_000_019]


def test_a_skip_past_the_end_of_a_file_is_noticed(tmp_path: Path) -> None:
    for size in (len(DATA) + 1, 1 << 40):
        with file_of(tmp_path / "f", DATA) as file:
            with pytest.raises(Truncated):
                Reader(file).skip(size)
    with file_of(tmp_path / "f", DATA) as file:
        reader = Reader(file)
        reader.skip(len(DATA))
        assert reader.at_eof()


class Counted(io.FileIO):
    """Counts the bytes that are read, and not spliced."""

    count = 0

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        got = super().readinto(buffer) or 0
        self.count += got
        return got


def test_what_is_skipped_of_a_pipe_is_not_copied() -> None:
    ours, theirs = os.pipe()
    with in_thread(lambda: fill(theirs, DATA)), Counted(ours) as file:
        reader = Reader(file)
        assert reader.read_exact(10) == DATA[:10]
        reader.skip(len(DATA) - 13)
        assert file.count <= 1 << 16
        assert reader.position == len(DATA) - 3
        assert reader.read_up_to(100) == DATA[-3:]


def test_a_skip_past_the_end_of_a_pipe_is_noticed() -> None:
    ours, theirs = os.pipe()
    with in_thread(lambda: fill(theirs, DATA)), io.FileIO(ours) as file, pytest.raises(Truncated):
        Reader(file).skip(len(DATA) + 1)


def test_what_cannot_be_spliced_is_skipped_by_reading() -> None:
    reader = Reader(Dribble(DATA, 50_000))
    reader.skip(len(DATA) - 3)
    assert reader.read_up_to(100) == DATA[-3:]


# --- writing ---


class ShortOutput:
    """Accepts at most three bytes per write."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.data += bytes(data[:3])
        return min(3, len(data))


def test_writes_are_complete() -> None:
    output = ShortOutput()
    writer = Writer(output)
    writer.write(b"0123456789")
    writer.write(b"")
    writer.write(bytearray(b"abc"))
    writer.write(memoryview(b"defg")[1:])
    assert (output.data, writer.position) == (b"0123456789abcefg", 16)


def test_a_non_blocking_output_is_waited_for() -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    result = bytearray()
    with in_thread(lambda: drain(ours, result)), io.FileIO(theirs, "w") as file:
        Writer(file).write(DATA)
    assert result == DATA


def test_a_non_blocking_input_is_waited_for() -> None:
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    with in_thread(lambda: fill(theirs, DATA, 4096)), io.FileIO(ours) as file:
        assert Reader(file).read_up_to(len(DATA) + 1) == DATA


def test_a_write_error_is_a_failure() -> None:
    with open("/dev/full", "wb", buffering=0) as file:  # noqa: PTH123
        with pytest.raises(Failed, match="^cannot write to the target: No space left on device$"):
            Writer(file, "the target").write(b"x")
    with pytest.raises(Failed, match="Input/output error$"):
        Writer(Broken(errno.EIO)).write(b"x")


def test_a_reader_that_left_is_not_a_failure_of_ours() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with io.FileIO(theirs, "w") as file, pytest.raises(BrokenPipeError):
        Writer(file).write(b"x")


def test_lines_are_written_in_blocks() -> None:
    sizes = []

    class Output(io.BytesIO):
        def write(self, data: object, /) -> int:
            sizes.append(len(data))  # type: ignore[arg-type]
            return super().write(data)  # type: ignore[arg-type]

    output = Output()
    lines = [f"{number}\n" for number in range(100_000)]
    Writer(output).write_lines(iter(lines))
    assert output.getvalue() == "".join(lines).encode()
    assert max(sizes) < (1 << 16) + 64 and len(sizes) < 20


# --- copying ---


def check_copy(reader: Reader, writer: Writer, data: bytes, size: int, result: Callable[[], bytes]) -> None:
    """Ten bytes are read first, so that the copy begins with buffered bytes."""
    assert reader.read_exact(10) == data[:10]
    reader.copy_to(writer, size)
    assert reader.position == size + 10
    assert writer.position == size
    assert result() == data[10 : size + 10]


SIZES = [0, 1, 100, 65526, 65527, BLOCK, BLOCK + 1, len(DATA) - 10]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("append", [False, True])
def test_copy_file_to_file(tmp_path: Path, size: int, append: bool) -> None:
    # No side is a pipe: splice says EINVAL; so does sendfile where the target is opened for appending.
    with file_of(tmp_path / "in", DATA) as source, io.FileIO(tmp_path / "out", "a" if append else "w") as target:
        check_copy(Reader(source), Writer(target), DATA, size, (tmp_path / "out").read_bytes)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("blocking", [True, False])
def test_copy_file_to_pipe(tmp_path: Path, size: int, blocking: bool) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, blocking)
    result = bytearray()
    with file_of(tmp_path / "in", DATA) as source:
        reader = Reader(source)
        thread = threading.Thread(target=drain, args=(ours, result))
        thread.start()
        with io.FileIO(theirs, "w") as target:
            writer = Writer(target)
            assert reader.read_exact(10) == DATA[:10]
            reader.copy_to(writer, size)
        thread.join()
        assert (reader.position, writer.position) == (size + 10, size)
        assert reader.read_up_to(5) == DATA[size + 10 : size + 15]
    assert result == DATA[10 : size + 10]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("blocking", [True, False])
def test_copy_pipe_to_file(tmp_path: Path, size: int, append: bool, blocking: bool) -> None:
    # A target opened for appending refuses splice with EINVAL.
    ours, theirs = os.pipe()
    os.set_blocking(ours, blocking)
    path = tmp_path / "out"
    with in_thread(lambda: fill(theirs, DATA, 50_000)):
        with io.FileIO(ours) as source, io.FileIO(path, "a" if append else "w") as target:
            reader = Reader(source)
            check_copy(reader, Writer(target), DATA, size, path.read_bytes)
            assert reader.read_up_to(5) == DATA[size + 10 : size + 15]
            reader.copy_rest(Writer(io.BytesIO()))


@pytest.mark.parametrize("blocking", [True, False])
def test_copy_pipe_to_pipe(blocking: bool) -> None:
    source_end, filler = os.pipe()
    drainer, target_end = os.pipe()
    os.set_blocking(source_end, blocking)
    os.set_blocking(target_end, blocking)
    result = bytearray()
    with in_thread(lambda: fill(filler, DATA, 4096)), in_thread(lambda: drain(drainer, result, 5000)):
        with io.FileIO(source_end) as source, io.FileIO(target_end, "w") as target:
            Reader(source).copy_rest(Writer(target))
    assert result == DATA


def test_copy_socket_to_socket() -> None:
    # sshd hands a command sockets in place of pipes.
    theirs, source_end = socket.socketpair()
    drainer, target_end = socket.socketpair()
    result = bytearray()
    with in_thread(lambda: fill(theirs.detach(), DATA)), in_thread(lambda: drain(drainer.detach(), result)):
        with io.FileIO(source_end.detach()) as source, io.FileIO(target_end.detach(), "w") as target:
            Reader(source).copy_to(Writer(target), len(DATA))
    assert result == DATA


def test_copy_appends(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before")
    ours, theirs = os.pipe()
    with in_thread(lambda: fill(theirs, b"after")), io.FileIO(ours) as source, io.FileIO(path, "a") as target:
        Reader(source).copy_rest(Writer(target))
    assert path.read_bytes() == b"beforeafter"


@pytest.mark.parametrize("through_pipe", [True, False])
def test_a_copy_that_ends_too_early_has_written_everything_read(tmp_path: Path, through_pipe: bool) -> None:
    path = tmp_path / "out"
    ours, theirs = os.pipe()
    fill(theirs, b"x" * 1000)
    file = io.FileIO(ours) if through_pipe else file_of(tmp_path / "in", b"x" * 1000)
    with file, io.FileIO(path, "w") as target:
        writer = Writer(target)
        with pytest.raises(Truncated, match="^standard input ends too early$"):
            Reader(file).copy_to(writer, 1001)
    assert path.read_bytes() == b"x" * 1000 and writer.position == 1000
    if not through_pipe:
        os.close(ours)


def test_a_copy_to_a_reader_that_left(tmp_path: Path) -> None:
    for held in (0, 1):
        ours, theirs = os.pipe()
        os.close(ours)
        with file_of(tmp_path / "in", DATA) as source, io.FileIO(theirs, "w") as target:
            reader = Reader(source)
            reader.read_exact(held)
            with pytest.raises(BrokenPipeError):
                reader.copy_rest(Writer(target))


def test_a_copy_to_a_full_disk() -> None:
    ours, theirs = os.pipe()
    fill(theirs, b"x")
    with io.FileIO(ours) as source, open("/dev/full", "wb", buffering=0) as target:  # noqa: PTH123
        with pytest.raises(Failed, match="No space left on device$"):
            Reader(source).copy_rest(Writer(target))


def test_splice_is_used_with_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    original = os.splice

    def counting(source: int, target: int, count: int) -> int:
        done = original(source, target, count)
        moved.append(done)
        return done

    monkeypatch.setattr(os, "splice", counting)
    ours, theirs = os.pipe()
    result = bytearray()
    with in_thread(lambda: drain(ours, result)):
        with file_of(tmp_path / "in", DATA) as source, io.FileIO(theirs, "w") as target:
            Reader(source).copy_to(Writer(target), len(DATA))
    assert result == DATA and sum(moved) == len(DATA)


@pytest.mark.parametrize("blocking", [True, False])
def test_copy_file_to_socket(tmp_path: Path, blocking: bool) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(blocking)
    result = bytearray()
    with in_thread(lambda: drain(ours.detach(), result)):
        with file_of(tmp_path / "in", DATA) as source, io.FileIO(theirs.detach(), "w") as target:
            check_copy(Reader(source), Writer(target), DATA, len(DATA) - 10, lambda: DATA[10:])
    assert result == DATA[10:]


def test_sendfile_is_used_without_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    original = os.sendfile

    def counting(target: int, source: int, offset: None, count: int) -> int:
        done = original(target, source, offset, count)
        moved.append(done)
        return done

    monkeypatch.setattr(os, "sendfile", counting)
    with file_of(tmp_path / "in", DATA) as source, io.FileIO("/dev/null", "w") as target:
        Reader(source).copy_to(Writer(target), len(DATA))
    assert sum(moved) == len(DATA)


def test_without_support_of_the_kernel_bytes_are_copied_in_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def refusing(*arguments: object) -> int:
        calls.append(arguments)
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(os, "splice", refusing)
    monkeypatch.setattr(os, "sendfile", refusing)
    ours, theirs = os.pipe()
    result = bytearray()
    with in_thread(lambda: drain(ours, result)):
        with file_of(tmp_path / "in", DATA) as source, io.FileIO(theirs, "w") as target:
            reader, writer = Reader(source), Writer(target)
            reader.copy_to(writer, 1000)
            reader.copy_rest(writer)
    assert result == DATA and len(calls) == 2  # asked once each, not for every block


def test_an_error_in_splice_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(source: int, target: int, count: int) -> int:
        raise OSError(errno.EIO, "bad sector")

    monkeypatch.setattr(os, "splice", failing)
    with file_of(tmp_path / "in", DATA) as source, io.FileIO(tmp_path / "out", "w") as target:
        with pytest.raises(Failed, match="^cannot copy the disk to the target: Input/output error$"):
            Reader(source, "the disk").copy_rest(Writer(target, "the target"))


@pytest.mark.parametrize("size", [0, 1, 512, BLOCK, 3 * BLOCK + 1])
def test_zeros_are_written(size: int) -> None:
    file = io.BytesIO()
    writer = Writer(file)
    writer.write(b"a")
    writer.write_zeros(size)
    writer.write(b"b")
    assert file.getvalue() == b"a" + bytes(size) + b"b"
    assert writer.position == size + 2


@pytest.mark.parametrize(("mode", "hole"), [("wb", True), ("ab", False), ("r+b", False)])
def test_zeros_at_the_end_of_a_file_are_a_hole(tmp_path: Path, mode: str, hole: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old" * BLOCK)
    kept = path.read_bytes()
    size = 2 * BLOCK
    with path.open(mode, buffering=0) as file:
        writer = Writer(file)
        writer.write(b"a")
        writer.write_zeros(size)
        writer.write(b"b")
    written = b"a" + bytes(size) + b"b"
    assert path.read_bytes() == {"wb": written, "ab": kept + written, "r+b": written + kept[len(written) :]}[mode]
    assert (path.stat().st_blocks * 512 < size) == hole


def test_zeros_that_no_file_can_have_are_a_failure(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:
        with pytest.raises(Failed, match="cannot write to standard output: "):
            Writer(file).write_zeros(1 << 62)


def test_widening_a_pipe_is_a_wish() -> None:
    ours, theirs = os.pipe()
    try:
        widen_pipe(theirs, 1 << 17)
        assert fcntl.fcntl(ours, fcntl.F_GETPIPE_SZ) == 1 << 17
        widen_pipe(theirs, 1 << 62)
    finally:
        os.close(ours)
        os.close(theirs)
    widen_pipe(theirs)  # closed
    with open(os.devnull, "rb") as file:  # noqa: PTH123
        widen_pipe(file.fileno())


def test_what_is_left_to_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1234567")
    with (tmp_path / "file").open("rb", buffering=0) as file:
        for at, left in {0: 7, 3: 4, 7: 0, 9: 0}.items():
            file.seek(at)
            assert (left_to_read(file.fileno()), file.tell()) == (left, at)
    near, far = os.pipe()
    assert left_to_read(near) is None
    os.close(near)
    os.close(far)


# --- an input that is silent ---


@pytest.mark.parametrize("how", ["read_exact", "copy_to", "at_eof", "skip"])
def test_a_silent_input_is_given_up(how: str, tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    with io.FileIO(ours) as source, io.FileIO(theirs, "w") as other, io.FileIO(tmp_path / "out", "w") as out:
        late = threading.Timer(20, other.close)  # who waits for ever fails the test, and does not hold it up
        late.start()
        reader = Reader(source, "the sender", 512)
        reader.patience = 0.05
        other.write(b"x" * 512)
        assert reader.read_exact(512) == b"x" * 512
        with pytest.raises(Failed, match=r"no data from the sender for 0\.05 seconds"):
            {
                "read_exact": lambda: reader.read_exact(1),
                "copy_to": lambda: reader.copy_to(Writer(out), 1),
                "at_eof": reader.at_eof,
                "skip": lambda: reader.skip(1),
            }[how]()
        late.cancel()


def test_an_input_that_is_slow_or_ends_is_not_given_up(tmp_path: Path) -> None:
    ours, theirs = os.pipe()

    def dribble() -> None:
        for _ in range(8):
            time.sleep(0.05)
            os.write(theirs, b"x")
        os.close(theirs)

    with io.FileIO(ours) as source, io.FileIO(tmp_path / "out", "w") as out, in_thread(dribble):
        reader = Reader(source)
        reader.patience = 30
        reader.copy_rest(Writer(out))
    assert (tmp_path / "out").read_bytes() == b"x" * 8
