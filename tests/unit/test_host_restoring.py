"""A plan is carried out on a host whose verbs fail: new domains are removed, and those that need them fail, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from qbtools.domains import names, plan, safexml, selection
from qbtools.domains.defaults import Defaults
from qbtools.domains.planlines import CREATE
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Damaged, Failed, Refused
from qbtools.hosts import client, directory
from qbtools.hosts.client import Host
from qbtools.hosts.local import LocalHost
from qbtools.hosts.restoring import Restore
from qbtools.hosts.store import Store
from qbtools.volumes.marks import Mark

ADMIN = '<domain id="domain-0" class="AdminVM"><properties><property name="label">red</property></properties></domain>'
LABELS = '<labels><label id="label-1" color="0x0">red</label></labels>'
ME = Mark.own()
DEAD = ME._replace(start=1)


def archive() -> Metadata:
    """deb <- net <- work, and alone."""
    domains = [ADMIN]
    for number, (name, kind, properties) in enumerate(
        [
            ("deb", "TemplateVM", {"netvm": ""}),
            ("net", "AppVM", {"template": "deb", "provides_network": "True", "netvm": ""}),
            ("work", "AppVM", {"template": "deb", "netvm": "net"}),
            ("alone", "StandaloneVM", {"netvm": ""}),
        ],
        1,
    ):
        table = "".join(f'<property name="{key}">{text}</property>' for key, text in properties.items())
        domains.append(
            f'<domain id="domain-{number}" class="{kind}"><properties><property name="name">{name}</property>'
            f'<property name="label">red</property>{table}</properties><features>'
            f'<feature name="backup-content">1</feature><feature name="backup-path">vm{number}/</feature></features>'
            f'<volume-config><volume name="private" size="4096" save_on_stop="True"/></volume-config></domain>'
        )
    return Metadata(
        safexml.parse(f"<qubes>{LABELS}<properties/><domains>{''.join(domains)}</domains></qubes>".encode())
    )


class Here(Host):
    """A host that is a directory, without programs in between. fails: the verbs and domains that fail, with a count."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._local = LocalHost(Store(str(place / "qubes.xml")), directory.Directory(str(place)), lambda _: None)
        self.fails: set[tuple[str, str]] = set()
        self.calls: list[tuple[str, str]] = []
        self.warnings: list[str] = []
        self.then: Callable[[], None] = lambda: None

    def _call(self, verb: str, domain: str) -> None:
        self.calls.append((verb, domain))
        if (verb, domain) in self.fails:
            self.then()
            raise Failed(f"{verb} {domain}: it fails")

    def inventory(self) -> Metadata:
        return Metadata(safexml.parse(self._local.inventory()))

    def defaults(self) -> Defaults:
        return Defaults()

    def check(self, document: bytes) -> list[str]:
        self._local.check(document)
        return self.warnings

    def create(self, document: bytes) -> list[tuple[str, str]]:
        name = Metadata(safexml.parse(document)).domains[1].name
        self._call("create", name)
        lines = self._local.create(document)
        self._call("created", name)
        return [(line.split("\t")[0], line.rstrip("\n").split("\t")[1]) for line in lines]

    def set(self, domain: str, document: bytes) -> None:
        self._call("set", domain)
        self._local.set(domain, document)

    def remove(self, domain: str, mark: str) -> None:
        self._call("remove", domain)
        self._local.remove(domain, mark)

    def made(self) -> dict[str, Mark | None]:
        """The owner of each domain, by its name."""
        found = self.inventory()
        return {domain.name: client.mark_of(found, domain.name) for domain in found.domains[1:]}


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def restore(here: Here, warnings: list[str] | None = None, names_: Iterable[str] = ()) -> Restore:
    """For a plan that was made now."""
    source = archive()
    made = plan.make(source, here.inventory(), Defaults(), plan.Options(include=list(names_)), here.leftovers())
    written = [line.written for line in made.lines if line.created]
    said = warnings if warnings is not None else []
    return Restore(here, source, written, lambda _: None, said.append)


def settle(here: Here, original: Restore, good: dict[str, bool], **more: bool) -> None:
    again = Restore(here, original._archive, original._written, lambda _: None, original._warn)
    again.settle(ME, good, more.get("keep_failed", False))


ALL = {"deb", "net", "work", "alone"}


def test_all_is_well(here: Here) -> None:
    task = restore(here)
    files = task.apply(ME, False)
    assert [one.to_line().split("\t")[:3] for one in files] == [
        ["vm1/private.img", "deb", "private"],
        ["vm2/private.img", "net", "private"],
        ["vm3/private.img", "work", "private"],
        ["vm4/private.img", "alone", "private"],
    ]
    assert all(one.target and one.target.endswith(f"/{one.domain}/private.img") for one in files)
    assert here.made() == dict.fromkeys(ALL, ME)
    verbs = [verb for verb, _ in here.calls if verb in ("create", "set")]
    assert verbs == ["create"] * 4 + ["set"] * 4, "references only when all are there"
    settle(here, task, dict.fromkeys(ALL, True))
    assert here.made() == dict.fromkeys(ALL)
    found = here.inventory().by_name
    assert (found["work"].properties["netvm"], found["work"].properties["template"]) == ("net", "deb")


def test_a_machine_that_names_no_other_is_set_once(here: Here) -> None:
    """A run of the host for each machine takes longer than all else."""
    task = restore(here, names_=["alone"])
    task._written = [line._replace(netvm=names.DEFAULT) for line in task._written]
    task.apply(ME, False)
    assert [call for call in here.calls if call[0] in ("create", "set")] == [("create", "alone")]
    settle(here, task, {"alone": True})
    assert here.made() == {"alone": None}


def test_only_shown(here: Here) -> None:
    assert [(one.domain, one.target) for one in restore(here).rehearse()] == [
        (name, None) for name in ("deb", "net", "work", "alone")
    ]
    assert not here.calls
    here.warnings = ["work: no network", "it is old"]
    said: list[str] = []
    restore(here, said).rehearse()
    assert said == here.warnings
    (here.place / "work").mkdir()
    (here.place / "work/mine").touch()
    with pytest.raises(Refused, match=r"work: .*/work already exists, but no domain has that name"):
        restore(here).rehearse()


@pytest.mark.parametrize("verb", ["create", "created", "set"])
@pytest.mark.parametrize("domain", ["deb", "work", "alone"])
def test_what_was_made_is_removed(here: Here, verb: str, domain: str) -> None:
    here.fails = {(verb, domain)}
    with pytest.raises(Failed, match=f"{verb} {domain}: it fails"):
        restore(here).apply(ME, False)
    assert not here.made()
    assert ("create", domain) in here.calls


def test_a_signal(here: Here) -> None:
    class Signal(BaseException):
        pass

    def then() -> None:
        raise Signal

    here.fails, here.then = {("set", "work")}, then
    task = restore(here)
    with pytest.raises(Signal):
        task.apply(ME, True)
    assert here.made(), "whoever called it may end other things first"
    task.undo(ME)
    assert not here.made()


@pytest.mark.parametrize("verb", ["create", "created", "set"])
@pytest.mark.parametrize(
    ("domain", "left"), [("deb", {"alone"}), ("net", {"deb", "work", "alone"}), ("alone", {"deb", "net", "work"})]
)
def test_going_on(here: Here, verb: str, domain: str, left: set[str]) -> None:
    """A domain whose template failed fails, too; a domain whose netvm failed gets no network."""
    warnings: list[str] = []
    here.fails = {(verb, domain)}
    files = restore(here, warnings).apply(ME, True)
    assert {one.domain for one in files} == left == here.made().keys()
    assert any(f"{domain} is not created: {verb} {domain}: it fails" in text for text in warnings)
    if domain == "net":
        assert here.inventory().by_name["work"].properties["netvm"] == ""
        assert any("work: netvm net → none" in text for text in warnings)


def test_nothing_is_left_to_go_on_with(here: Here) -> None:
    here.fails = {("create", "deb"), ("create", "alone")}
    with pytest.raises(Failed, match="no domain could be created"):
        restore(here).apply(ME, True)
    assert not here.made()


@pytest.mark.parametrize("keep", [False, True])
def test_some_failed(here: Here, keep: bool) -> None:
    task = restore(here)
    task.apply(ME, False)
    settle(here, task, {"deb": True, "net": False, "work": True}, keep_failed=keep)
    left = {"deb": None, "work": None, **({"net": ME, "alone": ME} if keep else {})}
    assert here.made() == left
    assert here.inventory().by_name["work"].properties["netvm"] == ""


def test_a_template_failed(here: Here) -> None:
    task = restore(here)
    task.apply(ME, False)
    with pytest.raises(Failed, match="deb is not restored"):
        settle(here, task, {"deb": False, "net": True, "work": True, "alone": True})
    assert here.made() == {"alone": None}


def test_it_cannot_be_finished_or_removed(here: Here) -> None:
    warnings: list[str] = []
    task = restore(here, warnings)
    task.apply(ME, False)
    here.fails = {("set", "alone"), ("remove", "alone")}
    with pytest.raises(Failed, match="alone: set alone: it fails, and 1 more"):
        settle(here, task, dict.fromkeys(ALL, True))
    assert here.made() == {"deb": None, "net": None, "work": None, "alone": ME}
    assert warnings == ["the unfinished domain alone cannot be removed: remove alone: it fails"]


def test_a_domain_that_was_never_made(here: Here) -> None:
    here.fails = {("create", "alone")}
    task = restore(here)
    task.apply(ME, True)
    with pytest.raises(Failed, match="alone was not created"):
        settle(here, task, {"deb": True, "net": True, "work": True})
    assert here.made() == {"deb": None, "net": None, "work": None}


def test_only_our_own_are_settled(here: Here) -> None:
    task = restore(here)
    task.apply(DEAD, False)
    with pytest.raises(Failed, match="was not created"):
        settle(here, task, dict.fromkeys(ALL, True))
    assert here.made() == dict.fromkeys(ALL, DEAD)
    with pytest.raises(Damaged, match="the plan creates no domain other"):
        settle(here, task, {"other": True})


def test_leftovers_are_made_again(here: Here) -> None:
    """With their own names; names of a live run are taken."""
    restore(here).apply(DEAD, False)
    files = restore(here, names_=["deb", "net"]).apply(ME, False)
    assert {one.domain for one in files} == {"deb", "net"}
    assert here.made() == {"deb": ME, "net": ME, "work": DEAD, "alone": DEAD}
    files = restore(here, names_=["deb"]).apply(ME, False)
    assert {one.domain for one in files} == {"deb-1"}


def test_the_plan_fits_no_longer(here: Here) -> None:
    """Before anything is made, or removed."""
    task = restore(here)
    restore(here, names_=["alone"]).apply(ME, False)
    here.calls.clear()
    again = Restore(here, task._archive, task._written, lambda _: None, lambda _: None)
    with pytest.raises(Refused, match=r"1 of the domains cannot be restored: alone \(name: alone is taken"):
        again.apply(ME, True)
    assert not here.calls


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("going", [False, True])
def test_two_runs_that_want_the_same_names(here: Here, left: bool, going: bool) -> None:
    """Both plans exist before the first run creates anything; the second must not change domains of the first."""
    if left:
        restore(here).apply(DEAD, False)
    first, second = restore(here), restore(here)
    other = ME._replace(start=2)
    first.apply(other, False)
    with pytest.raises(
        Failed if going else Refused, match="no domain could be created" if going else "domain deb already exists"
    ):
        second.apply(ME, going)
    assert here.made() == dict.fromkeys(ALL, other)


def test_every_volume_has_a_target(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    real = here.create
    monkeypatch.setattr(here, "create", lambda document: real(document)[1:])
    with pytest.raises(Failed, match="the host has created no volume private for deb"):
        restore(here).apply(ME, False)
    assert not here.made()


def test_the_words() -> None:
    assert (CREATE, names.UNFINISHED) == ("create", "qbtools-unfinished"), "both stand in manuals"
    assert [domain.name for domain in selection.restorable(archive())] == ["deb", "net", "work", "alone"]
