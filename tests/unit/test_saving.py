"""What is saved of a host: checked before anything is read, in which state, in which order."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import machines
import pytest

from qbtools.domains import selection
from qbtools.domains.selection import LeftOut
from qbtools.errors import Failed, OtherPython, QbError, Refused
from qbtools.hosts import saving, savingtext
from qbtools.hosts.unsaved import Unsaved
from qbtools.volumes import snapshots
from qbtools.volumes.kind import SourceOptions

SIZE = 8192
METADATA = machines.metadata(
    machines.vm("work", volumes=({"name": "root", "save_on_stop": "False"}, machines.PRIVATE)),
    machines.vm("both", "StandaloneVM", volumes=({**machines.PRIVATE, "name": "root"}, machines.PRIVATE)),
    machines.vm("none", volumes=()),
)


class Volume(NamedTuple):
    name: str
    source: str
    size: int = SIZE
    used: int = 100
    running: bool = False
    save: bool = True


class FakeHost:
    """Answers what a host would."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.running: set[str] = set()
        self.further: dict[str, list[tuple[str, str]]] = {}
        self.hidden: set[str] = set()
        self.at_once: set[str] = set()
        self.asked: list[str] = []
        for name in ("work.root", "work.private", "both.root", "both.private"):
            (place / name).write_bytes(bytes(SIZE))

    def contents(self, domains: Sequence[str]) -> dict[str, tuple[list[Volume], list[tuple[str, str]]]]:
        """Of the domains that it knows at once."""
        return {name: (self._volumes(name), self.files(name)) for name in domains if name in self.at_once}

    def volumes(self, domain: str) -> list[Volume]:
        self.asked.append(domain)
        return self._volumes(domain)

    def _volumes(self, domain: str) -> list[Volume]:
        return [
            Volume(name, str(path), running=domain in self.running, save=(domain, name) != ("work", "root"))
            for name in ("root", "private")
            if (path := self.place / f"{domain}.{name}").exists() and path.name not in self.hidden
        ]

    def files(self, domain: str) -> list[tuple[str, str]]:
        return self.further.get(domain, [])


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


@pytest.fixture
def cloning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretends that the file system has reflinks."""
    monkeypatch.setattr(snapshots, "check", lambda *_: None)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretends that it has none."""

    def refuse(words: Sequence[str], *_: object) -> None:
        raise Refused(f"{words[0]}: no snapshot can be taken here")

    monkeypatch.setattr(snapshots, "check", refuse)


def make_socket(path: Path) -> None:
    """A socket's path has at most 107 bytes."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


def look(host: Any, *named: str, state: str | None = None) -> saving.Found:
    chosen = selection.for_saving(METADATA, named or ("work", "both", "none"), (), ()).chosen
    return saving.survey(host, chosen, SourceOptions(state))


def survey(host: Any, *named: str, state: str | None = None) -> Sequence[saving.Machine]:
    """The survey of all machines; raises the error of the first that cannot be saved."""
    found = look(host, *named, state=state)
    for one in found.failing:
        raise one.error
    return found.machines


def lines(found: Sequence[saving.Machine], freezer: str | None = None) -> list[tuple[object, ...]]:
    paths = {machine.name: f"vm{number}/" for number, machine in enumerate(found, 1)}
    return [tuple(file)[:-1] for file in saving.files(found, paths, freezer)]


def test_snapshots_of_all_volumes_of_a_machine(host: FakeHost, cloning: None) -> None:
    place = host.place
    assert lines(survey(host)) == [
        ("vm1/private.img", "volume", SIZE, 100, "work", "snapshot", 1, 1, None, f"{place}/work.private"),
        ("vm2/root.img", "volume", SIZE, 100, "both", "snapshot", 1, 2, None, f"{place}/both.root"),
        ("vm2/private.img", "volume", SIZE, 100, "both", "snapshot", 2, 2, None, f"{place}/both.private"),
        ("vm3/empty", "empty", 0, 0, "none", "stopped", 0, 0, None, ""),
    ]


def test_all_domains_are_asked_for_at_once(host: FakeHost, cloning: None) -> None:
    """Except one of which the host knows nothing then, and one that is alone."""
    single = lines(survey(host))
    host.at_once, host.asked = {"work", "none"}, []
    assert (lines(survey(host)), host.asked) == (single, ["both"])
    survey(host, "work")
    assert host.asked == ["both", "work"]


def test_machines_that_stand_still_are_read_themselves(host: FakeHost, plain: None) -> None:
    found = survey(host, "both")
    assert found[0].state == "stopped" and not found[0].at_once
    assert [line[6:8] for line in lines(found)] == [(0, 0), (0, 0)]


def test_a_volume_that_only_another_python_can_read(
    host: FakeHost, plain: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage that reads it starts again under that one."""

    def load() -> None:
        raise OtherPython("/usr/bin/python3", "it is missing for this Python", "install it")

    monkeypatch.setattr(saving.locate, "open_source", lambda *_: load())
    assert survey(host, "both")[0].state == "stopped"


def test_a_machine_that_runs_needs_a_snapshot(host: FakeHost, plain: None) -> None:
    host.running = {"both"}
    with pytest.raises(Refused, match="^both: the machine runs; .*both.root: no snapshot can be taken here") as caught:
        survey(host)
    assert "--state=current" in str(caught.value.hint)
    assert [machine.state for machine in survey(host, "work")] == ["stopped"]
    assert [machine.state for machine in survey(host, state="current")] == ["current"] * 3


def test_a_requested_snapshot_is_taken_or_the_run_fails(host: FakeHost, plain: None) -> None:
    with pytest.raises(Refused, match="^work: "):
        survey(host, "work", state="snapshot")


def test_only_machines_that_run_are_frozen(host: FakeHost, cloning: None) -> None:
    host.running = {"both"}
    found = lines(survey(host), "qb-host-x /a")
    assert [line[8] for line in found] == [None, "qb-host-x /a", "qb-host-x /a", None]
    assert [line[8] for line in lines(survey(host))] == [None] * 4
    assert [line[8] for line in lines(survey(host, state="current"), "qb-host-x /a")] == [None] * 4


def test_volumes_that_cannot_be_read(host: FakeHost, plain: None) -> None:
    (host.place / "both.private").write_bytes(bytes(SIZE + 1))
    with pytest.raises(Failed, match=f"both:private has {SIZE + 1} bytes, not {SIZE} as the host says"):
        survey(host)
    (host.place / "both.private").write_bytes(bytes(SIZE))
    host.hidden = {"both.private"}
    with pytest.raises(Failed, match="both: the host has no volume private, which its metadata says is saved"):
        survey(host)
    host.hidden = set()
    (host.place / "both.private").unlink()
    (host.place / "both.private").mkdir()
    with pytest.raises(QbError, match="both.private"):
        survey(host)


def test_the_others_are_still_checked(host: FakeHost, plain: None) -> None:
    (host.place / "work.private").unlink()
    host.running = {"both"}
    with (host.place / "both.private").open("r+b"):
        found = look(host)
    assert [machine.name for machine in found.machines] == ["none"]
    assert [one.name for one in found.failing] == ["work", "both"]
    missing, running = (one.reason for one in found.failing)
    assert missing == "the host has no volume private, which its metadata says is saved"
    assert re.match(
        r"the machine runs; .*both.private is in use: process \d+ \(.*\) has it open for writing; .*current", running
    )
    assert savingtext.table([], [], (), found.failing)[-2:] == [
        f"cannot be saved: work: {missing}",
        f"cannot be saved: both: {running}",
    ]
    document = savingtext.as_document([], [], (), found.failing)
    assert document["failed"] == [{"name": "work", "reason": missing}, {"name": "both", "reason": running}]


def test_further_files(host: FakeHost, cloning: None) -> None:
    (host.place / "firewall.xml").write_bytes(b"<x/>")
    (host.place / "menus").mkdir()
    (host.place / "menus/one").write_bytes(bytes(5000))
    host.further = {"none": [("firewall.xml", f"{host.place}/firewall.xml"), ("apps", f"{host.place}/menus")]}
    found = survey(host, "none")
    assert lines(found) == [
        ("vm1/firewall.xml", "file", 4, 4, "none", "stopped", 0, 0, None, f"{host.place}/firewall.xml"),
        ("vm1/apps", "directory", 7048, 7048, "none", "stopped", 0, 0, None, f"{host.place}/menus"),
    ]
    assert [(one.name, one.size) for one in found[0].contents()] == [("firewall.xml", 4), ("apps", 7048)]


def test_what_a_directory_has_that_is_not_saved(host: FakeHost, cloning: None) -> None:
    (host.place / "home/sub").mkdir(parents=True)
    make_socket(host.place / "home/sub/socket")
    host.further = {"none": [("apps", f"{host.place}/home")], "dom0": [("dom0-home/user", f"{host.place}/home/sub")]}
    assert [machine.left_out for machine in survey(host, "dom0", "none")] == [
        [Unsaved(name, f"{host.place}/home/sub/socket", "a socket")] for name in ("dom0", "none")
    ]


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        ("../x", "/dev/null", r"calls a file \.\./x"),
        ("x", "/dev/null", "neither a file"),
        ("x", "/no", "cannot read /no"),
    ],
)
def test_files_that_are_refused(name: str, path: str, message: str, host: FakeHost, cloning: None) -> None:
    host.further = {"none": [(name, path)]}
    with pytest.raises(QbError, match=message):
        survey(host)


def test_the_home_of_dom0(host: FakeHost, cloning: None) -> None:
    with pytest.raises(Failed, match="the host has no home of dom0 to save"):
        survey(host, "dom0")
    host.further = {"dom0": [(f"dom0-home/{name}", str(host.place)) for name in ("user", "other")]}
    with pytest.raises(Failed, match="the host has 2 homes of dom0, and only one can be saved"):
        survey(host, "dom0")
    host.further = {"dom0": [("dom0-home/user", str(host.place)), ("x", "/dev/null")]}
    found = survey(host, "dom0")
    (line,) = saving.files(found, {"dom0": "dom0-home/user"}, None)
    assert (line.archive_name, line.kind, line.word) == ("dom0-home/user", "directory", str(host.place))


def test_the_table(host: FakeHost, cloning: None) -> None:
    host.running = {"both"}
    found = survey(host)
    text = savingtext.table(found, [LeftOut(METADATA.by_name["work"], "excluded")])
    assert text == [
        "domain  class         volumes      size  in use  state",
        "work    AppVM               1   8.0 KiB   100 B  stopped: a snapshot",
        "both    StandaloneVM        2  16.0 KiB   200 B  running: a snapshot",
        "none    AppVM               0       0 B     0 B  stopped",
        "total                       3  24.0 KiB   300 B",
        "left out: work (excluded)",
    ]
    assert savingtext.table([], [])[1].split() == ["total", "0", "0", "B", "0", "B"]
    unsaved = [Unsaved("work", "/h/work/a b", "why"), Unsaved(None, "/h/other", "whose")]
    assert savingtext.table([], [], unsaved)[2:] == ["left out: /h/work/a b (why)", "left out: /h/other (whose)"]
    assert savingtext.left_out_document([LeftOut(METADATA.by_name["work"], "excluded")], unsaved) == [
        {"name": "work", "reason": "excluded"},
        {"name": "/h/work/a b", "domain": "work", "reason": "why"},
        {"name": "/h/other", "domain": None, "reason": "whose"},
    ]
    document = savingtext.as_document(found, [])
    assert document["domains"][1]["state"] == "snapshot"  # type: ignore[index]
    assert document["domains"][1]["size"] == 16384, "in bytes"  # type: ignore[index]


def test_a_host_that_holds_volumes(host: FakeHost, cloning: None) -> None:
    """What a running machine writes to is not opened: the host will say how to read it."""
    host.running = {"both"}
    (host.place / "both.root").write_bytes(bytes(SIZE + 1))
    chosen = selection.for_saving(METADATA, ("work", "both"), (), ()).chosen
    found = saving.survey(host, chosen, SourceOptions(), True)  # type: ignore[arg-type]
    assert [(one.name, one.held, one.state, one.at_once) for one in found.machines] == [
        ("work", True, "snapshot", True),
        ("both", True, "snapshot", True),
    ]
    files = list(saving.files(found.machines, {"work": "vm1/", "both": "vm2/"}, "freezer"))
    assert [(file.held, file.at, file.of, file.freezer) for file in files] == [
        (True, 1, 1, None),
        (True, 1, 2, None),
        (True, 2, 2, None),
    ]
    found = saving.survey(host, chosen, SourceOptions(state="current"), True)  # type: ignore[arg-type]
    assert [(one.name, one.held) for one in found.machines] == [("work", False)]
    assert "has 8193 bytes, not 8192" in found.failing[0].reason
