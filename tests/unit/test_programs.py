"""Programs that we choose: their input, the message about their end, and that they end with us."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from running import read, wait_until

from qbtools import environments, programs
from qbtools.errors import Failed
from qbtools.streams import SPOILT

KEPT = {
    "PATH": "/bin",
    "HOME": "/root",
    "USER": "me",
    "LOGNAME": "me",
    "TERM": "xterm",
    "TMPDIR": "/tmp",
    "TZ": "UTC",
    "LANG": "C",
    "LC_ALL": "C",
    "LC_MESSAGES": "C",
    "LD_LIBRARY_PATH": "/lib",
    "XDG_RUNTIME_DIR": "/run/user/0",
    "SSH_AUTH_SOCK": "/run/agent",
    "GPG_TTY": "/dev/tty",
    "GPG_AGENT_INFO": "x",
}
DROPPED = [
    *("GZIP", "PIGZ", "XZ_OPT", "XZ_DEFAULTS", "ZSTD_CLEVEL", "ZSTD_NBTHREADS", "BZIP2", "BZIP", "POSIXLY_CORRECT"),
    *("TAR_OPTIONS", "TAPE", "LD_PRELOAD", "BASH_ENV", "QB_PASSPHRASE_FILE", "AWS_SECRET_ACCESS_KEY", "LC", "MYPATH"),
]


def test_the_environment_is_what_is_listed_and_nothing_else() -> None:
    assert environments.chosen_environment({**KEPT, **dict.fromkeys(DROPPED, "x")}) == KEPT
    assert environments.chosen_environment({}) == {}


def shell(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


def ending(text: str) -> str:
    with programs.running(shell(text)) as child:
        child.wait()
        return child.ending()


def test_a_program_gets_that_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*KEPT, *DROPPED):
        monkeypatch.setenv(name, "mine")
    with (tmp_path / "said").open("wb") as file, programs.running(["/usr/bin/env"], stdout=file.fileno()) as child:
        assert child.wait() == 0
    # Python itself may have added an LC_CTYPE.
    assert set((tmp_path / "said").read_text().split()) >= {f"{name}=mine" for name in KEPT}
    assert not [name for name in DROPPED if f"\n{name}=" in f"\n{(tmp_path / 'said').read_text()}"]


def test_it_works_on_the_descriptors_that_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"content")
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        with programs.running(["/bin/cat"], source.fileno(), target.fileno()) as child:
            assert child.wait() == 0
    assert (tmp_path / "out").read_bytes() == b"content"


def test_how_it_ended() -> None:
    assert ending("exit 3") == "sh ended with status 3"
    assert ending("echo sh: no luck >&2; echo more >&2; exit 2") == "sh ended with status 2: no luck"
    assert ending("echo >&2; echo '  it is late ' >&2; exit 2") == "sh ended with status 2: it is late"
    assert ending("kill -KILL $$") == "sh was killed by SIGKILL"
    assert ending("kill -40 $$") == "sh was killed by signal 40"


def test_sigpipe_kills_it_and_shows_as_what_it_is() -> None:
    """Python ignores SIGPIPE, and children inherit that."""
    with programs.running(shell("kill -PIPE $$; exit 0")) as child, pytest.raises(BrokenPipeError):
        child.wait()


def test_no_signal_is_blocked_in_it() -> None:
    assert ending("kill -TERM $$; exit 0") == "sh was killed by SIGTERM"
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGTERM, signal.SIGINT}


def test_its_messages_never_block_it() -> None:
    """Nothing reads its messages while it runs: everything beyond the size of a pipe is lost."""
    with programs.running(shell("yes 'a long line of words' | head -c 3000000 >&2; exit 5")) as child:
        assert child.wait() == 5
        assert child.said()[0] == "a long line of words"


def test_when_the_body_ends_so_has_it() -> None:
    began = time.monotonic()
    with pytest.raises(KeyError), programs.running(["/bin/sleep", "60"]) as child:
        raise KeyError
    with pytest.raises(ProcessLookupError):
        os.kill(child._pid, 0)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    "text", ["exec sleep 1000", "kill -STOP $$", "trap '' IO TERM HUP INT; while :; do sleep 0.1; done"]
)
def test_when_we_are_killed_so_is_it(text: str) -> None:
    said, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        with programs.running(shell(f"echo; {text}"), stdout=theirs) as child:
            os.write(theirs, str(child._pid).encode())
            child.wait()
        os._exit(0)
    os.close(theirs)
    data = b""
    while b"\n" not in data or not data.strip():
        data += os.read(said, 100)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    wait_until(lambda: state(int(data)) == "Z", "the end of the program")
    os.close(said)


def state(pid: int) -> str:
    return read(f"/proc/{pid}/stat").decode().rpartition(") ")[2][:1] or "Z"


def test_what_cannot_be_started(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Failed, match="cannot start nothing: No such file or directory"):
        with programs.running([f"{tmp_path}/nothing"]):
            pass
    assert os.listdir("/proc/self/fd") == before


def test_a_program_is_looked_for_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, mode in (("a", 0o644), ("b", 0o755), ("c", 0o755)):
        (tmp_path / place).mkdir()
        (tmp_path / place / "it").touch(mode)
    (tmp_path / "directory/it").mkdir(parents=True)
    monkeypatch.setenv("PATH", f"/no/such:{tmp_path}/directory:{tmp_path}/a:{tmp_path}/b:{tmp_path}/c")
    if os.geteuid() == 0:
        assert not os.access(tmp_path / "a/it", os.X_OK)
    assert programs.find("it") == f"{tmp_path}/b/it"
    assert programs.find("no-such-program") is None
    monkeypatch.setenv("PATH", ":/bin")
    monkeypatch.chdir(tmp_path / "c")
    assert programs.find("it") == "./it"


def test_a_spoilt_stream() -> None:
    source, sink = os.pipe()
    programs.spoil(sink)
    assert any(os.read(source, 100))
    # It is full and has no reader: it is abandoned.
    os.set_blocking(sink, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(sink, bytes(4096))
    os.set_blocking(sink, True)
    began = time.monotonic()
    programs.spoil(sink)
    assert 0.5 < time.monotonic() - began < 30
    os.close(source)
    programs.spoil(sink)
    os.close(sink)
    for written in (512 - len(SPOILT), 1000, 512):
        source, sink = os.pipe()
        programs.spoil(sink, written)
        text = os.read(source, 100)
        assert text.endswith(SPOILT) and (written + len(text)) % 512
        os.close(source)
        os.close(sink)
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="No space left"):
        programs.spoil(full.fileno())
