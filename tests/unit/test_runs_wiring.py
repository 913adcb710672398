"""The stages as children: a few lines of bash are used in their place."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from running import spare_others, wait_until

from qbtools import processtree
from qbtools.errors import Failed
from qbtools.reports import Failure
from qbtools.runs.eventpipe import EventPipe
from qbtools.runs.hearing import Happened
from qbtools.runs.listpipe import ListPipe
from qbtools.runs.wiring import Wiring

Made = Callable[..., Wiring]
BEGINS = '#!/bin/bash\nlist=/dev/fd/$2 report=/dev/fd/$3\nsay() { printf "%s\\n" "$1" >"$report"; }\n'
WELL = "say 'stages 0'"


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Makes a run of a text in bash."""

    def make(
        text: str,
        groups: dict[str, Sequence[str]] | None = None,
        keep: Sequence[int] = (),
        lists: Sequence[ListPipe] = (),
        events: Sequence[EventPipe] = (),
        late: bool = False,
    ) -> Wiring:
        path = tmp_path / "script"
        path.write_text(BEGINS + text + "\n")
        path.chmod(0o755)
        return Wiring(
            str(path),
            "create",
            None if late else groups or {},
            ["-v"],
            os.open(os.devnull, os.O_RDONLY),
            keep,
            lists=lists,
            events=events,
        )

    return make


@pytest.fixture(autouse=True)
def whole(monkeypatch: pytest.MonkeyPatch) -> object:
    """No test leaves a process, a descriptor of the run, or another handler of SIGUSR1."""
    spare_others(monkeypatch)
    before = signal.getsignal(signal.SIGUSR1)
    yield
    assert processtree.below(os.getpid()) == []
    assert signal.getsignal(signal.SIGUSR1) is before


def ended(wiring: Wiring, told: str | bytes = b"") -> tuple[tuple[int, ...] | None, list[Failure], list[Happened]]:
    events: list[Happened] = []
    with wiring:
        wiring.tell_all(told)
        return *wiring.run(events.append), events


def test_all_is_well(made: Made) -> None:
    text = """say '{"event": "begin", "name": "a"}'; cat "$list" >/dev/null; """ + WELL
    assert ended(made(text)) == ((0,), [], [Happened("begin", "a")])


def test_what_the_script_is_given(made: Made, tmp_path: Path) -> None:
    groups = {"seal": ["--x=a b", ":store", "=", ""], "store": ["--", "-"]}
    text = f'printf "%s\\n" "$0" "$1" "${{@:4}}" "$QB_RUN_PID" "$PPID" "$QB_VOICE" "$LC_ALL" "$PATH" >{tmp_path}/out; '
    ended(made(text + WELL, groups))
    found = (tmp_path / "out").read_text().splitlines()
    assert found[:11] == [
        *(f"{tmp_path}/script", "create", ":seal", "=--x=a b", "=:store", "==", "=", ":store", "=--", "=-"),
        str(os.getpid()),
    ]
    assert found[11:14] == [str(os.getpid()), "-v", "C.UTF-8"]
    assert found[14] == f"{tmp_path}:{os.environ['PATH']}"


def test_it_inherits_nothing_else(made: Made, tmp_path: Path) -> None:
    ours = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(ours, True)
    kept = os.open(os.devnull, os.O_RDONLY)
    ended(made(f'echo "$2 $3"; ls -l /proc/$$/fd >{tmp_path}/fds; echo "$2 $3" >{tmp_path}/own; ' + WELL, keep=[kept]))
    open_there = set(re.findall(r" (\d+) -> ", (tmp_path / "fds").read_text()))
    own = set((tmp_path / "own").read_text().split())
    given = {"0", "1", "2", str(kept), *own}
    # bash keeps the script itself open, with a number of three digits, which those of a busy worker have too
    assert {fd for fd in open_there if len(fd) < 3 or fd in given} == given
    assert str(ours) not in open_there
    os.close(ours)
    os.close(kept)


@pytest.mark.parametrize("text", ["exit 0", "exit 3", "kill -KILL $$", "exec true", "say 'stages'", "say ''", "say x"])
def test_an_end_without_a_report_is_no_success(text: str, made: Made) -> None:
    if text.startswith("say"):
        with pytest.raises(Failed, match="malformed report"):
            ended(made(text))
    else:
        assert ended(made(text))[0] is None


def test_half_a_report_is_ignored(made: Made) -> None:
    assert ended(made('printf "stages 0" >"$report"'))[0] is None


def test_statuses_and_failures(made: Made) -> None:
    text = """say '{"program": "qb-x", "status": 5}'; say 'stages 5 141'"""
    assert ended(made(text)) == ((5, 141), [Failure("qb-x", 5)], [])


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 5_000_000])
def test_a_list_larger_than_a_pipe_is_sent_completely(size: int, made: Made, tmp_path: Path) -> None:
    data = os.urandom(size)
    assert ended(made(f'sleep 0.1; cat "$list" >{tmp_path}/got; {WELL}'), data)[0] == (0,)
    assert (tmp_path / "got").read_bytes() == data


def test_several_lists(made: Made, tmp_path: Path) -> None:
    """They are written side by side, whichever is read first, and all are closed."""
    data, lists = [os.urandom(1_000_000) for _ in range(3)], [ListPipe(), ListPipe()]
    words = {"open": [str(one.reader) for one in lists]}
    text = 'n=0; for one in "/dev/fd/${6#=}" "$list" "/dev/fd/${5#=}"; do cat "$one" >got$n; ((++n)); done; ' + WELL
    with made(f"cd {tmp_path}; {text}", words, lists=lists) as wiring:
        for one, part in zip(lists, data[1:], strict=True):
            one.tell_all(part)
        wiring.tell_all(data[0])
        assert wiring.run(lambda _event: None)[0] == (0,)
    assert [(tmp_path / f"got{number}").read_bytes() for number in range(3)] == [data[2], data[0], data[1]]


def test_events_with_data_while_others_report(made: Made) -> None:
    """What has a pipe of its own is whole, whatever comes on the other one, and however late it is read."""
    pipes, data = [EventPipe(), EventPipe()], os.urandom(500_000).hex()
    writers = [str(pipe.writer) for pipe in pipes]
    text = f"""line='{{"event": "done", "name": "%s", "size": 1000000}}\\n%s\\n'
        tell() {{ printf "$line" "$1" "$(cat data)" >&"$2"; }}
        cd $(dirname "$0"); tell a "${{5#=}}" & tell b "${{6#=}}" &
        for i in {{1..500}}; do say '{{"event": "begin", "name": "x"}}'; done; wait; {WELL}"""
    wiring = made(text, {"open": writers}, events=pipes)
    Path(wiring._script).with_name("data").write_text(data)
    statuses, failures, events = ended(wiring)
    assert (statuses, failures) == ((0,), [])
    assert sorted(event.name for event in events) == ["a", "b", *["x"] * 500]
    assert [event.data for event in events if event.event == "done"] == [data.encode()] * 2


def test_a_failure_ends_stages_that_wait_for_each_other(made: Made) -> None:
    began = time.monotonic()
    assert ended(made("say 'stages 4'; sleep 100; say 'stages 0'"))[0] == (4,)
    assert time.monotonic() - began < 50


def test_a_part_of_a_stage_that_fails_ends_others_that_wait_for_it(made: Made) -> None:
    began = time.monotonic()
    assert ended(made("say 'failing 4'; sleep 100"))[0] == (4,)
    assert time.monotonic() - began < 50


@pytest.mark.parametrize(("last", "statuses"), [("stages 5 4", (5, 4)), ("stages 0 0", (4,))])
def test_a_part_of_a_stage_that_fails_is_no_further_stage(last: str, statuses: tuple[int, ...], made: Made) -> None:
    assert ended(made(f"say 'failing 4'; say '{last}'"))[0] == statuses


def test_words_that_come_later(made: Made, tmp_path: Path) -> None:
    text = f"""cd {tmp_path}; echo "$4" >given
    mapfile -d '' -t words <"/dev/fd/${{5#=}}"; printf '%s\\n' "${{words[@]}}" >>given; {WELL}"""
    with made(text, late=True) as wiring:
        wait_until((tmp_path / "given").exists, "the script")
        wiring.give({"seal": ["a b", ""], "open": ["--x=ü"]})
        with wiring:
            assert wiring.run(lambda _event: None)[0] == (0,)
    assert (tmp_path / "given").read_text().splitlines() == [":later", ":seal", "=a b", "=", ":open", "=--x=ü", "end"]


def test_words_that_never_come(made: Made, tmp_path: Path) -> None:
    """An error before they are known ends the script."""
    with (
        pytest.raises(ValueError, match="x"),
        made(f'mapfile -d "" -t words <"/dev/fd/${{5#=}}"; >{tmp_path}/end', late=True),
    ):
        raise ValueError("x")
    assert not (tmp_path / "end").exists()


def test_a_reader_that_leaves(made: Made) -> None:
    """The rest of the list is dropped, and the run ends with the error of the stages."""
    text = """eval "exec $2<&-"; say '{"event": "begin", "name": "a"}'; say 'stages 1'"""
    assert ended(made(text), bytes(5_000_000))[0] == (1,)


def test_sending_to_a_reader_that_has_ended(made: Made) -> None:
    text = """eval "exec $2<&-"; for i in 1 2 3; do say '{"event": "source", "name": "a"}'; sleep 0.1; done; """ + WELL
    with made(text) as wiring:
        wiring.tell(bytes(1_000_000))
        assert wiring.run(lambda event: wiring.tell(f"{event.name}\n")) == ((0,), [])


def test_a_dialogue(made: Made, tmp_path: Path) -> None:
    """The source of each file is sent when the file is needed."""
    text = f"""exec 9<"$list"
    for name in a b; do
        say '{{"event": "source", "name": "'$name'"}}'; read -r line <&9; echo "$line" >>{tmp_path}/got
    done; {WELL}"""
    with made(text) as wiring:
        assert wiring.run(lambda event: wiring.tell(f"source of {event.name}\n")) == ((0,), [])
    assert (tmp_path / "got").read_text() == "source of a\nsource of b\n"


def test_an_error_of_a_listener_ends_everything(made: Made) -> None:
    def listen(event: Happened) -> None:
        raise ValueError(event.name)

    text = """setsid sleep 1000 & say '{"event": "begin", "name": "a"}'; sleep 1000; """ + WELL
    with pytest.raises(ValueError, match="a"), made(text) as wiring:
        wiring.run(listen)


@pytest.mark.parametrize("text", ["kill -KILL $$", "say 'stages 1'"])
def test_nothing_outlives_a_pipe_that_failed(text: str, made: Made) -> None:
    """Neither processes that a stage has left behind, nor processes that keep the report open."""
    began = time.monotonic()
    assert ended(made(f"setsid sleep 1000 & {text}"))[0] in (None, (1,))
    assert time.monotonic() - began < processtree.GRACE + 5


def test_a_process_that_keeps_the_report_open_does_not_delay_the_run(made: Made) -> None:
    with made(f'exec 9>"$report"; sleep 3 & {WELL}') as wiring:
        began = time.monotonic()
        assert wiring.run(lambda _: None) == ((0,), [])
        assert time.monotonic() - began < 2.5
    processtree.end_all()


def test_a_script_that_cannot_be_started(made: Made, tmp_path: Path) -> None:
    wiring = made("")
    (tmp_path / "script").chmod(0o644)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Failed, match="cannot start .*script: Permission denied"), wiring:
        pass
    assert os.listdir("/proc/self/fd") == before


def test_no_descriptor_is_left(made: Made) -> None:
    first = made(WELL)
    before = os.listdir("/proc/self/fd")
    ended(first)
    assert os.listdir("/proc/self/fd") == before


def test_progress_is_asked_of_the_stages(made: Made, tmp_path: Path) -> None:
    text = f"""trap '' USR1
    env --default-signal=USR1 bash -c '
    trap "echo >{tmp_path}/asked; exit" USR1
    echo >&'$3' "{{\\"event\\": \\"begin\\", \\"name\\": \\"a\\"}}"
    while :; do sleep 0.05; done'; {WELL}"""
    with made(text) as wiring:
        statuses, _ = wiring.run(lambda _: os.kill(os.getpid(), signal.SIGUSR1))
    assert statuses == (0,)
    assert (tmp_path / "asked").exists()


class Signal(BaseException):
    pass


def test_a_signal_ends_the_wait_for_stages_that_say_nothing(made: Made) -> None:
    def raise_it(*_: object) -> None:
        raise Signal

    before = signal.signal(signal.SIGALRM, raise_it)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGALRM)).start()
    try:
        with pytest.raises(Signal), made("sleep 1000; " + WELL) as wiring:
            wiring.run(lambda _: None)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_signal_while_the_script_is_started(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that were started by then are ended."""
    started: list[int] = []

    def environment(_: object) -> dict[str, str]:
        pid = os.fork()
        if not pid:
            os.execv("/bin/sleep", ["sleep", "1000"])
        started.append(pid)
        raise Signal

    monkeypatch.setattr("qbtools.runs.wiring.cmd_environment", environment)
    with pytest.raises(Signal), made(WELL):
        pass
    assert not os.path.exists(f"/proc/{started[0]}")
