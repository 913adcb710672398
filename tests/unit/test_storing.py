"""A file gets its name when it is complete: what is refused, what is replaced, and the order of the steps."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from qbtools import directories, storing
from qbtools.commands import ending
from qbtools.errors import Failed, Refused
from qbtools.storing import PartialFile, name_problem


def store(path: Path, data: bytes, overwrite: bool = False, keep: bool = False) -> None:
    with PartialFile(str(path), overwrite, keep) as file:
        file.writer.write(data)
        file.commit()


def fail(path: Path, keep: bool = False) -> None:
    with pytest.raises(ZeroDivisionError), PartialFile(str(path), False, keep) as file:
        file.writer.write(b"half")
        raise ZeroDivisionError


def names(place: Path) -> list[str]:
    return sorted(os.listdir(place))


@pytest.mark.parametrize("limit", [0, 1, (4 << 30) - 1, (1 << 63) - 1])
def test_the_largest_size_of_a_file(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def try_size(_fd: int, size: int) -> None:
        if size > limit:
            raise OSError(errno.EFBIG, "too large")

    monkeypatch.setattr(directories, "try_size", try_size)
    with PartialFile(str(tmp_path / "a"), False, False) as file:
        assert file.largest() == limit
        assert os.lseek(file.writer.fd, 0, os.SEEK_CUR) == 0


# --- names that somebody else chooses ---


@pytest.mark.parametrize("name", ["a", "vm1.qb", "A-9_.@+", "x" * 240, "partial", "a.partial.qb", "qb-store"])
def test_good_names(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "..",
            ".hidden",
            "-",
            "-rf",
            "--overwrite",
            "a/b",
            "/a",
            "a b",
            "a\n",
            "\na",
            "a\0",
            "ä",
            "a;b",
            "$a",
        ),
        *(
            "x" * 241,
            "a.partial",
            ".partial",
            "a*",
            "a'",
            "`a`",
            "a\\b",
            "a:b",
            "a~",
            "a=b",
            "a\N{ARABIC-INDIC DIGIT ONE}",
        ),
    ],
)
def test_bad_names(name: str) -> None:
    assert name_problem(name)


# --- what is written, and when it gets its name ---


def test_without_commit_nothing_is_left(tmp_path: Path) -> None:
    fail(tmp_path / "a")
    assert names(tmp_path) == []


def test_without_commit_the_partial_file_is_kept_on_request(tmp_path: Path) -> None:
    fail(tmp_path / "a", keep=True)
    assert names(tmp_path) == ["a.partial"] and (tmp_path / "a.partial").read_bytes() == b"half"


def test_it_has_another_name_until_it_is_complete_and_others_cannot_read_it(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with PartialFile(str(tmp_path / "a"), False, False) as file:
            assert names(tmp_path) == ["a.partial"]
            assert stat.S_IMODE((tmp_path / "a.partial").stat().st_mode) == 0o600
            file.writer.write(b"whole")
            file.commit()
    finally:
        os.umask(old)
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"whole"


@pytest.mark.parametrize("overwrite", [False, True])
def test_it_is_on_the_disk_before_it_gets_its_name(
    overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def noting(call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def noted(*arguments: Any, **more: Any) -> Any:
            is_directory = name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
            seen.append("fsync directory" if is_directory else name)
            return call(*arguments, **more)

        return noted

    for name in ("fsync", "rename"):
        monkeypatch.setattr(os, name, noting(getattr(os, name), name))
    monkeypatch.setattr(directories, "check_rename", lambda _directory: None)
    monkeypatch.setattr(directories, "rename_new", noting(directories.rename_new, "rename"))
    store(tmp_path / "a", b"whole", overwrite)
    assert seen == ["fsync", "rename", "fsync directory"]


def test_a_file_system_that_cannot_rename_is_found_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_directory: int) -> None:
        raise OSError(errno.EPERM, "")

    monkeypatch.setattr(directories, "check_rename", fails)
    with pytest.raises(Failed, match="cannot rename files beside .*/a: Operation not permitted"):
        PartialFile(str(tmp_path / "a"), False, False).__enter__()
    assert names(tmp_path) == []


def test_a_file_without_a_directory_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store(Path("a"), b"whole")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("path", ["", ".", "..", "a/", "a/.."])
def test_not_a_name_of_a_file(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused, match="not the name of a file"):
        PartialFile(path, True, False).__enter__()
    assert names(tmp_path) == []


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"cannot write to .*/none/a\.partial: No such file or directory"):
        PartialFile(str(tmp_path / "none/a"), False, False).__enter__()


def test_a_disk_that_fails_at_the_end_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(Failed, match=r"cannot write to .*a\.partial: Input/output error"):
        store(tmp_path / "a", b"whole")
    assert names(tmp_path) == []


def test_much_is_written_to_the_disk_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(storing, "drop_cache", lambda _fd, at, count: told.append((at, count)))
    monkeypatch.setattr(storing, "_WRITEBACK", 1000)
    with PartialFile(str(tmp_path / "a"), False, False) as file:
        for _ in range(5):
            file.writer.write(bytes(600))
            file.begin_writing()
    assert told == [(0, 1200), (1200, 1200)]


# --- what has FILE's name ---


@pytest.mark.parametrize("what", ["file", "directory", "link", "dangling"])
def test_an_existing_file_is_refused_and_stays(what: str, tmp_path: Path) -> None:
    place = tmp_path / "a"
    occupy(place, what)
    before = place.lstat()
    with pytest.raises(Refused, match="a already exists"):
        PartialFile(str(place), False, False).__enter__()
    assert place.lstat() == before and not os.path.lexists(tmp_path / "a.partial")


def occupy(place: Path, what: str) -> None:
    if what == "file":
        place.write_bytes(b"before")
    elif what == "directory":
        place.mkdir()
    elif what == "link":
        (place.parent / "other").write_bytes(b"other")
        place.symlink_to("other")
    elif what == "dangling":
        place.symlink_to("nowhere")
    elif what == "fifo":
        os.mkfifo(place)
    else:
        os.mknod(place, stat.S_IFSOCK | 0o600)  # bind() takes short paths only


def test_overwriting(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    with PartialFile(str(tmp_path / "a"), True, False) as file:
        file.writer.write(b"after")
        assert (tmp_path / "a").read_bytes() == b"before"
        file.commit()
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"after"


def test_overwriting_a_symbolic_link_leaves_alone_what_it_points_to(tmp_path: Path) -> None:
    occupy(tmp_path / "a", "link")
    store(tmp_path / "a", b"after", overwrite=True)
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "other").read_bytes() == b"other"


@pytest.mark.parametrize("what", ["directory", "fifo", "socket"])
def test_only_a_file_is_overwritten(what: str, tmp_path: Path) -> None:
    occupy(tmp_path / "a", what)
    with pytest.raises(Refused, match="a already exists, and is not a regular file"):
        PartialFile(str(tmp_path / "a"), True, False).__enter__()
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("what", ["file", "dangling"])
def test_a_file_that_appears_meanwhile_is_not_replaced(what: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="a already exists: another program created it"):
        with PartialFile(str(tmp_path / "a"), False, False) as file:
            occupy(tmp_path / "a", what)
            file.commit()
    assert names(tmp_path) == ["a"]
    assert what != "file" or (tmp_path / "a").read_bytes() == b"before"


# --- what has FILE.partial's name ---


def test_what_a_dead_run_has_left_is_replaced(tmp_path: Path) -> None:
    fail(tmp_path / "a", keep=True)
    store(tmp_path / "a", b"whole")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"whole"


def test_nothing_is_written_into_what_a_dead_run_has_left(tmp_path: Path) -> None:
    """It may have another name, too."""
    (tmp_path / "precious").write_bytes(b"precious")
    os.link(tmp_path / "precious", tmp_path / "a.partial")
    store(tmp_path / "a", b"whole")
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_what_a_living_run_writes_is_refused_and_stays(tmp_path: Path) -> None:
    with PartialFile(str(tmp_path / "a"), False, False) as first:
        first.writer.write(b"first")
        for overwrite in (False, True):
            with pytest.raises(Refused, match=r"another run is writing .*a\.partial"):
                PartialFile(str(tmp_path / "a"), overwrite, False).__enter__()
        first.commit()
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"first"


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("link", "a symbolic link"),
        ("dangling", "a symbolic link"),
        *((what, "not a regular file") for what in ("directory", "fifo", "socket")),
    ],
)
def test_a_partial_that_is_none(what: str, kind: str, tmp_path: Path) -> None:
    occupy(tmp_path / "a.partial", what)
    before = (tmp_path / "a.partial").lstat()
    with pytest.raises(Refused, match=rf"a\.partial already exists, and is {kind}"):
        PartialFile(str(tmp_path / "a"), True, False).__enter__()
    assert (tmp_path / "a.partial").lstat() == before
    assert what != "link" or (tmp_path / "other").read_bytes() == b"other"


def test_an_existing_file_is_found_before_what_a_dead_run_has_left_is_removed(tmp_path: Path) -> None:
    fail(tmp_path / "a", keep=True)
    occupy(tmp_path / "a", "file")
    with pytest.raises(Refused):
        PartialFile(str(tmp_path / "a"), False, False).__enter__()
    assert names(tmp_path) == ["a", "a.partial"]


# --- what happens between two steps ---


def before_the_first_lock(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    flock = fcntl.flock
    left = [happens]

    def late(fd: int, how: int) -> None:
        if left:
            left.pop()()
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)


def test_the_holder_of_the_lock_has_given_the_file_its_name_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """We have opened its file and get the lock: it is an archive now, and must not be removed."""
    (tmp_path / "a.partial").write_bytes(b"first")
    before_the_first_lock(monkeypatch, lambda: (tmp_path / "a.partial").rename(tmp_path / "a"))
    with pytest.raises(Refused, match="a already exists"):
        PartialFile(str(tmp_path / "a"), False, False).__enter__()
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"first"


def test_and_it_is_to_be_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.partial").write_bytes(b"first")
    before_the_first_lock(monkeypatch, lambda: (tmp_path / "a.partial").rename(tmp_path / "a"))
    with PartialFile(str(tmp_path / "a"), True, False) as file:
        file.writer.write(b"second")
        assert (tmp_path / "a").read_bytes() == b"first"
        file.commit()
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"second"


def test_another_run_has_begun_a_partial_of_its_own_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """We have opened the file of the dead run; the other run has replaced it and has locked the new one."""
    (tmp_path / "a.partial").write_bytes(b"dead")
    others: list[PartialFile] = []
    stack = ExitStack()
    first = PartialFile(str(tmp_path / "a"), False, False)
    before_the_first_lock(monkeypatch, lambda: others.append(stack.enter_context(first)))
    with pytest.raises(Refused, match="another run is writing"):
        PartialFile(str(tmp_path / "a"), False, False).__enter__()
    with stack:
        (other,) = others
        other.writer.write(b"other")
        other.commit()
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"other"


def test_another_run_took_our_new_partial_for_a_dead_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its creation and its lock."""
    others: list[PartialFile] = []
    stack = ExitStack()
    first = PartialFile(str(tmp_path / "a"), False, False)
    before_the_first_lock(monkeypatch, lambda: others.append(stack.enter_context(first)))
    with pytest.raises(Refused, match="another run is writing"):
        PartialFile(str(tmp_path / "a"), False, False).__enter__()
    with stack:
        (other,) = others
        assert names(tmp_path) == ["a.partial"]
        other.commit()
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("call", ["open", "fstat"])
def test_a_signal_while_it_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Nothing is left, wherever the signal arrives."""
    real = getattr(os, call)

    def struck(*words: Any, **more: Any) -> Any:
        done = real(*words, **more)
        if (tmp_path / "a.partial").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return done

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGTERM, ending._terminate)
        with monkeypatch.context() as patch, pytest.raises(ending.Terminated):
            patch.setattr(os, call, struck)
            with PartialFile(str(tmp_path / "a"), False, True):
                pytest.fail("the signal was lost")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert names(tmp_path) == []


def test_the_partial_was_taken_away(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"a\.partial was removed or replaced"):
        with PartialFile(str(tmp_path / "a"), False, False) as file:
            (tmp_path / "a.partial").unlink()
            (tmp_path / "a.partial").write_bytes(b"another's")
            file.commit()
    assert names(tmp_path) == ["a.partial"] and (tmp_path / "a.partial").read_bytes() == b"another's"


def test_an_end_between_a_hard_link_and_the_end_of_the_old_name(tmp_path: Path) -> None:
    """The partial file of a killed run is then the archive itself: only the old name is removed."""
    (tmp_path / "a").write_bytes(b"first")
    os.link(tmp_path / "a", tmp_path / "a.partial")
    with PartialFile(str(tmp_path / "a"), True, False) as file:
        file.writer.write(b"second")
        assert (tmp_path / "a").read_bytes() == b"first"
