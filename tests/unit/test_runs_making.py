"""A restore to a host: domains are created or not, and new domains are finished or removed."""

from __future__ import annotations

from pathlib import Path

import machines
import pytest

from qbtools.domains import plan, safexml
from qbtools.domains.defaults import Defaults
from qbtools.domains.planlines import Plan
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Damaged, Failed, Refused, UsageError
from qbtools.hosts import directory, results
from qbtools.hosts.local import LocalHost
from qbtools.hosts.store import Store
from qbtools.runs import places
from qbtools.runs.making import Making, Wishes
from qbtools.runs.opening import Enough
from qbtools.volumes import spots

NAMES = ["one", "two"]
VOLUMES = tuple({"name": name, "size": "4096", "save_on_stop": "True"} for name in ("root", "private"))
ARCHIVE = machines.metadata(*(machines.vm(name, "StandaloneVM", netvm="") for name in NAMES))
FILES = [f"{domain.features['backup-path']}private.img" for domain in ARCHIVE.domains if domain.name in NAMES]


class FakeHost:
    """A directory, without programs in between. fails: the errors that verbs raise, by domain."""

    def __init__(self, place: Path) -> None:
        place.mkdir(exist_ok=True)
        self._local = LocalHost(Store(str(place / "qubes.xml")), directory.Directory(str(place)), lambda _: None)
        self.fails: dict[str, BaseException] = {}
        self.one_target = False
        self.warnings: list[str] = []
        self.place = place
        self.checks = 0
        self.places: dict[str, list[tuple[str, str]]] = {}

    def _call(self, text: str) -> None:
        if text in self.fails:
            raise self.fails.pop(text)

    def inventory(self) -> Metadata:
        return Metadata(safexml.parse(self._local.inventory()))

    def defaults(self) -> Defaults:
        return Defaults(further=("tpm", "vtpm") if self.places else ())

    def files(self, domain: str) -> list[tuple[str, str]]:
        return self.places[domain]

    def leftovers(self, _: object = None) -> frozenset[str]:
        return frozenset()

    def check(self, document: bytes) -> list[str]:
        self.checks += 1
        if "check" in self.fails:
            raise self.fails["check"]
        self._local.check(document)
        return self.warnings

    def create(self, document: bytes) -> list[tuple[str, str]]:
        lines = self._local.create(document)
        self._call(f"create {Metadata(safexml.parse(document)).domains[1].name}")
        made = [(line.split("\t")[0], line.rstrip("\n").split("\t")[1]) for line in lines]
        return [(volume, made[0][1]) for volume, _target in made] if self.one_target else made

    def set(self, domain: str, document: bytes) -> None:
        self._call(f"set {domain}")
        self._local.set(domain, document)

    def remove(self, domain: str, mark: str) -> None:
        self._call(f"remove {domain}")
        self._local.remove(domain, mark)

    def names(self) -> list[str]:
        return [domain.name for domain in self.inventory().domains[1:]]


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


WISHES = Wishes(plan.Options(), None, None, (), False, False, False, False)


def make(host: FakeHost, agreed: bool = True, shown: list[Plan] | None = None, **changes: object) -> Making:
    plans = [] if shown is None else shown
    wishes = WISHES._replace(**changes)  # type: ignore[arg-type]
    return Making(host, wishes, plans.append, lambda: agreed, lambda _: None, lambda _: None)  # type: ignore[arg-type]


def come(made: Making, name: str, printed: str = "4096\n") -> None:
    made.begun(name)
    made.done(name, printed)


def test_all_goes_well(host: FakeHost) -> None:
    made = make(host)
    routes = dict(made.metadata(ARCHIVE))
    assert list(routes)[:2] == FILES
    assert all(target.startswith("volume:--overwrite --shrink:") for target in list(routes.values())[:2])
    assert made.unfinished
    for name in FILES:
        come(made, name)
    found = made.results(True)
    assert [(one.domain, one.problem) for one in found] == [("one", None), ("two", None)]
    assert results.restore_complaint(found, made.failed_files()) is None
    made.settle(found)
    assert (host.names(), made.unfinished) == (NAMES, False)


@pytest.mark.parametrize("going", [False, True])
def test_a_volume_that_is_missing_in_the_archive(going: bool, host: FakeHost) -> None:
    """With --keep-going the other domain stays."""
    made = make(host, keep_going=going)
    made.metadata(ARCHIVE)
    come(made, FILES[0])
    made.begun(FILES[1])
    found = made.results(False)
    error = results.restore_complaint(found, ())
    assert isinstance(error, Failed)
    assert error.message.startswith("1 of 2" if going else "2 of 2")
    made.settle(found)
    assert host.names() == (["one"] if going else [])


def test_a_volume_that_is_larger_than_it_may_be(host: FakeHost) -> None:
    made = make(host)
    made.metadata(ARCHIVE)
    come(made, FILES[0], str(1 << 50))
    assert results.restore_complaint(made.results(True), ()) is not None


@pytest.mark.parametrize("what", ["create two", "set one", "set two"])
def test_a_signal_while_domains_are_made(what: str, host: FakeHost) -> None:
    """The run does not know the new domains, but finds them by their marks."""
    host.fails = {what: KeyboardInterrupt()}
    made = make(host)
    with pytest.raises(KeyboardInterrupt):
        made.metadata(ARCHIVE)
    assert made.unfinished
    assert host.names()
    made.settle(made.results(False))
    assert (host.names(), made.unfinished) == ([], False)


def test_a_signal_while_domains_are_finished(host: FakeHost) -> None:
    """Finished domains stay, and a second attempt removes the others."""
    made = make(host)
    made.metadata(ARCHIVE)
    for name in FILES:
        come(made, name)
    host.fails = {"set two": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        made.settle(made.results(True))
    assert made.unfinished
    made.settle(())
    assert host.names() == ["one"]


def test_only_some_volumes(host: FakeHost) -> None:
    archive = machines.metadata(machines.vm("one", "StandaloneVM", netvm="", volumes=VOLUMES))
    made = make(host, only=("one:private",))
    assert [name.rpartition("/")[2] for name in dict(made.metadata(archive))] == ["private.img"]
    with pytest.raises(UsageError, match="the archive has no volume one:x"):
        make(host, only=("one:x",)).metadata(archive)


def test_a_host_that_gives_one_target_twice(host: FakeHost) -> None:
    host.one_target = True
    archive = machines.metadata(machines.vm("one", "StandaloneVM", netvm="", volumes=VOLUMES))
    made = make(host)
    with pytest.raises(Refused, match="one:root and one:private have the same target"):
        made.metadata(archive)
    made.settle(made.results(False))
    assert host.names() == []


def test_nothing_is_created_without_consent(host: FakeHost) -> None:
    shown: list[Plan] = []
    made = make(host, agreed=False, shown=shown)
    with pytest.raises(Failed, match="nothing was restored"):
        made.metadata(ARCHIVE)
    assert (len(shown), host.names(), made.unfinished) == (1, [], False)


def test_a_dry_run(host: FakeHost) -> None:
    shown: list[Plan] = []
    with pytest.raises(Enough):
        make(host, shown=shown, dry_run=True).metadata(ARCHIVE)
    assert (len(shown), host.names()) == (1, [])


def test_what_the_host_replaces_is_in_the_plan(host: FakeHost) -> None:
    """Before the user is asked. Other warnings are told."""
    host.warnings = ['two: no network "lab": \x1b is used', "it is old", "three: new"]
    shown: list[Plan] = []
    said: list[str] = []
    made = Making(host, WISHES, shown.append, lambda: False, said.append, said.append)  # type: ignore[arg-type]
    with pytest.raises(Failed, match="nothing was restored"):
        made.metadata(ARCHIVE)
    assert [line.notes for line in shown[0].lines] == [(), ('no network "lab": \\x1b is used',)]
    assert said == ["it is old", "three: new"]
    made = Making(host, WISHES._replace(verify_only=True), shown.append, bool, said.append, said.append)  # type: ignore[arg-type]
    with pytest.raises(Failed, match="nothing was restored"):
        made.metadata(ARCHIVE)
    assert said[2:] == ["it is old", "three: new", host.warnings[0]], "nothing is created that would tell it"


def test_only_a_verification(host: FakeHost) -> None:
    made = make(host, verify_only=True)
    assert set(dict(made.metadata(ARCHIVE)).values()) == {"check:"}
    assert (host.names(), made.unfinished) == ([], False)


@pytest.mark.parametrize("wish", ["dry_run", "verify_only"])
def test_what_only_the_host_knows(wish: str, host: FakeHost, tmp_path: Path) -> None:
    """A directory that belongs to no domain."""
    (tmp_path / "two").mkdir()
    (tmp_path / "two/mine").write_text("mine")
    with pytest.raises(Refused, match="two: .*/two already exists, but no domain has that name"):
        make(host, **{wish: True}).metadata(ARCHIVE)
    assert host.names() == []
    host.fails["check"] = Failed("out of room")
    with pytest.raises(Failed, match="out of room"):
        make(host, **{wish: True}, keep_going=True).metadata(ARCHIVE)


@pytest.mark.parametrize("wish", ["keep_failed", "dry_run", "verify_only", "keep_going"])
def test_the_host_is_asked_once(wish: str, host: FakeHost) -> None:
    """What it could not create is known before the user is asked. With --keep-going the others are restored."""
    if wish == "dry_run":
        with pytest.raises(Enough):
            make(host, dry_run=True).metadata(ARCHIVE)
    else:
        make(host, **{wish: True}).metadata(ARCHIVE)
    assert host.checks == 1
    host = FakeHost(host.place / "other")
    host.fails["check"] = Failed("out of room")
    shown: list[Plan] = []
    made = make(host, agreed=False, shown=shown, **{wish: True})
    with pytest.raises(Failed, match="nothing was restored" if wish == "keep_going" else "out of room"):
        made.metadata(ARCHIVE)
    assert ([len(one.lines) for one in shown], host.checks, host.names()) == ([2], 1, [])


def test_a_plan_with_a_problem(host: FakeHost) -> None:
    archive = machines.metadata(machines.vm("one", template="gone"))
    with pytest.raises(Refused, match="1 of the domains cannot be restored"):
        make(host).metadata(archive)
    assert host.names() == []


def test_an_archive_without_metadata(host: FakeHost) -> None:
    with pytest.raises(Damaged, match="has no qubes.xml"):
        make(host).no_metadata("vm1/root.img")


def test_a_volume_that_is_not_wanted_is_no_further_file(host: FakeHost, tmp_path: Path) -> None:
    archive = machines.metadata(
        machines.vm("one", "StandaloneVM", netvm="", volumes=({**machines.PRIVATE, "name": "root"}, machines.PRIVATE))
    )
    found = dict(make(host, only=["one:private"], files_to=str(tmp_path)).metadata(archive))
    path = archive.by_name["one"].features["backup-path"]
    assert found[f"?{path}root.img"] == "check:"
    assert found[f"{path}*"] == f"into:{tmp_path}/one"
    assert f"{path}private.img" in found and f"?{path}private.img" not in found


@pytest.mark.parametrize("files_to", [False, True])
def test_further_files_that_the_host_takes_back(files_to: bool, host: FakeHost, tmp_path: Path) -> None:
    """Each domain says where they must be, or that it cannot have them. A verification only reads them."""
    one, two = (ARCHIVE.by_name[name].features["backup-path"] for name in NAMES)
    host.places = {"one": [("tpm", "/state/one/tpm"), ("notes", "/notes")], "two": []}
    wanted = {"files_to": str(tmp_path) if files_to else None}
    found = dict(make(host, verify_only=True, **wanted).metadata(ARCHIVE))
    names = [f"?{path}{name}" for path in (one, two) for name in ("tpm", "vtpm")]
    assert {name: target for name, target in found.items() if name.startswith("?")} == dict.fromkeys(names, "tree:")
    found = dict(make(host, **wanted).metadata(ARCHIVE))
    assert {name: target for name, target in found.items() if "tpm" in name} == {f"?{one}tpm": "into:/state/one"}
    assert found.get(f"{one}*") == (f"into:{tmp_path}/one" if files_to else None)


def test_further_files_that_would_go_to_one_directory(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on vfat."""
    (tmp_path / "F").mkdir()
    archive = machines.metadata(*(machines.vm(name, "StandaloneVM", netvm="") for name in ("web", "Web")))
    make(host, files_to=f"{tmp_path}/F").metadata(archive)
    monkeypatch.setattr(spots, "are_one", lambda *_names: True)
    found = make(host, files_to=f"{tmp_path}/F", options=plan.Options(rename={"web": "one", "Web": "One"}))
    with pytest.raises(Refused, match="the further files of One and one go to the same place: .*/F/One"):
        found.metadata(archive)


def test_further_files_that_would_have_one_name(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on vfat. Their names are known early if the archive is a file. Files of other domains do not matter."""
    (tmp_path / "F").mkdir()
    one = ARCHIVE.by_name["one"].features["backup-path"]
    two = ARCHIVE.by_name["two"].features["backup-path"]
    monkeypatch.setattr(places, "archived", lambda _archive: iter((f"{two}Notes", f"{one}notes", f"{one}Notes")))
    make(host, files_to=f"{tmp_path}/F").metadata(ARCHIVE)
    monkeypatch.setattr(spots, "are_one", lambda *_names: True)
    renamed = plan.Options(rename={"one": "a", "two": "b"})
    with pytest.raises(Refused, match=f"the files {one}notes and {one}Notes go to the same place: .*/F/a/Notes"):
        make(host, files_to=f"{tmp_path}/F", options=renamed).metadata(ARCHIVE)
    monkeypatch.setattr(places, "archived", lambda _archive: iter((f"{two}Notes", f"{one}notes")))
    make(host, files_to=f"{tmp_path}/F", options=renamed).metadata(ARCHIVE)
