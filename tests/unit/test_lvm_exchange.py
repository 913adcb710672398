"""A volume replaces another, in a group in memory that fails before or after each step of lvm.

After every possible end the name must belong to a complete volume, old or new. After the next cleanup there must be
nothing else of ours, and everything of others must still exist.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from qbtools.errors import Failed, QbError, Refused, UsageError
from qbtools.volumes import snapshots
from qbtools.volumes.kind import SourceOptions
from qbtools.volumes.kinds.lvm import KIND
from qbtools.volumes.lvm import exchange, facts, tools
from qbtools.volumes.lvm.facts import Volume
from qbtools.volumes.marks import Mark

LIVING = Mark.own()
MARK = LIVING._replace(start=LIVING.start - 1)
"""Of a run that has ended, for who looks later on."""
TEMPORARY = "qbtools_0123456789abcde"


class Killed(BaseException):
    """SIGKILL: the program does nothing more."""


class Group:
    """The part of lvm that the exchange uses, for one group. Commands are counted; one of them may end the program."""

    def __init__(self) -> None:
        self.volumes: dict[str, Volume] = {}
        self.open: set[str] = set()  # UUIDs
        self.count = 0
        self.kill_at: tuple[int, bool] | None = None  # number of the command; whether it is done before the end
        self.failing: int | None = None
        self.dead = False

    def add(self, name: str, uuid: str, *tags: str, active: bool = True, read_only: bool = False) -> Volume:
        made = Volume(
            "vg", name, uuid, 1 << 22, frozenset({"thin"}), frozenset({"public"}), "pool", "", tags or ("",), read_only,
            False, active,
        )  # fmt: skip
        self.volumes[name] = made
        return made

    def lvm(self, program: str, *words: str) -> str:
        number, self.count = self.count, self.count + 1
        if self.dead:
            raise Killed
        if self.kill_at and self.kill_at[0] == number:
            self.dead = True
            if self.kill_at[1]:
                self._do(program, *words)
            raise Killed
        if self.failing == number:
            raise Failed(f"{program}: it fails")
        self._do(program, *words)
        return ""

    def _do(self, program: str, *words: str) -> None:
        rest = [word for word in words if word not in ("-qq", "-y", "-f", "-K")]
        if program == "lvrename":
            _group, old, new = rest
            if new in self.volumes or old not in self.volumes:
                raise Failed("lvrename: no")
            self.volumes[new] = self.volumes.pop(old)._replace(name=new)
            return
        volume = self.volumes.get(rest.pop().removeprefix("vg/"))
        if volume is None:
            raise Failed(f"{program}: not there")
        if program == "lvremove":
            assert volume.uuid not in self.open
            del self.volumes[volume.name]
            return
        assert program == "lvchange"
        for option, value in zip(rest, [*rest[1:], ""], strict=True):
            volume = self._changed(volume, option, value)
        self.volumes[volume.name] = volume

    def _changed(self, volume: Volume, option: str, value: str) -> Volume:
        tags = [tag for tag in volume.tags if tag]
        if option == "--addtag":
            return volume._replace(tags=(*tags, value))
        if option == "--deltag":
            tags.remove(value)
            return volume._replace(tags=tuple(tags) or ("",))
        if option == "-an" and volume.uuid in self.open:
            raise Failed("lvchange: in use")
        changes = {"-an": {"active": False}, "-ay": {"active": True}, "-pr": {"read_only": True}}
        return volume._replace(**changes.get(option, {}))

    def group(self, name: str) -> dict[str, Volume]:
        assert name == "vg"
        if self.dead:
            raise Killed
        return dict(self.volumes)

    def find(self, word: str) -> tuple[str, str] | None:
        return ("vg", word[3:]) if word[3:] in self.group("vg") else None

    def everywhere(self) -> list[Volume]:
        return list(self.volumes.values())


class NoLock:
    def __init__(self, _group: str) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_error: object) -> None:
        pass


@pytest.fixture
def vg(monkeypatch: pytest.MonkeyPatch) -> Iterator[Group]:
    made = Group()
    monkeypatch.setattr(tools, "lvm", made.lvm)
    monkeypatch.setattr(tools, "report", lambda *words: [made.volumes[words[-1].removeprefix("vg/")]._asdict()])
    monkeypatch.setattr(tools, "installed", lambda _program: True)
    for function in made.group, made.everywhere:
        monkeypatch.setattr(facts, function.__name__, function)

    def find(word: str) -> tuple[str, str] | None:
        return made.find(word)

    find.cache_clear = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setattr(facts, "find", find)
    monkeypatch.setattr(exchange, "_lock", NoLock)
    yield made


def warn(text: str) -> None:
    raise AssertionError(text)


def filled(vg: Group) -> None:
    """Our volume: complete, under its temporary name."""
    vg.add(TEMPORARY, "new", str(MARK))


def test_a_volume_gets_its_name(vg: Group) -> None:
    filled(vg)
    exchange.place("vg", TEMPORARY, "a", MARK)
    assert vg.volumes == {"a": vg.add("a", "new")}


def test_a_name_that_has_been_taken_is_left_to_its_owner(vg: Group) -> None:
    filled(vg)
    stranger = vg.add("a", "stranger")
    with pytest.raises(Refused, match="vg/a was created meanwhile"):
        exchange.place("vg", TEMPORARY, "a", MARK)
    assert vg.volumes["a"] == stranger


def test_an_exchange_passes_on_what_the_old_one_had(vg: Group) -> None:
    filled(vg)
    old = vg.add("a", "old", "mine", "yours", active=False, read_only=True)
    exchange.exchange(old, TEMPORARY, MARK, warn)
    assert vg.volumes == {"a": old._replace(uuid="new")}


def test_what_is_in_use_stays(vg: Group) -> None:
    filled(vg)
    old = vg.add("a", "old", "mine")
    vg.open.add("old")
    with pytest.raises(Refused, match="vg/a is in use"):
        exchange.exchange(old, TEMPORARY, MARK, warn)
    assert vg.volumes["a"] == old


def test_what_has_been_replaced_meanwhile_stays(vg: Group) -> None:
    filled(vg)
    old = vg.add("a", "old")
    other = vg.add("a", "other")
    with pytest.raises(Refused, match="vg/a was replaced meanwhile"):
        exchange.exchange(old, TEMPORARY, MARK, warn)
    assert vg.volumes["a"] == other


def test_a_volume_that_has_disappeared_needs_no_exchange(vg: Group) -> None:
    filled(vg)
    old = vg.add("a", "old", "mine")
    del vg.volumes["a"]
    exchange.exchange(old, TEMPORARY, MARK, warn)
    assert vg.volumes == {"a": vg.add("a", "new")}


STEPS = 8  # more than lvm is called


@pytest.mark.parametrize("number", range(STEPS))
@pytest.mark.parametrize("active", [True, False])
def test_a_step_that_fails_changes_nothing(vg: Group, number: int, active: bool) -> None:
    filled(vg)
    old = vg.add("a", "old", "mine", active=active)
    vg.failing = number
    heard: list[str] = []
    try:
        exchange.exchange(old, TEMPORARY, MARK, heard.append)
    except QbError:
        assert vg.volumes["a"] == old
        assert vg.volumes[TEMPORARY].uuid == "new"
        assert len(vg.volumes) == 2
    else:
        # Removing the old one is tried again and again; taking a tag off can be done later on.
        assert vg.volumes["a"].uuid == "new"
        assert heard or len(vg.volumes) == 1
        exchange.settle("vg", MARK)
        assert vg.volumes == {"a": old._replace(uuid="new")}


def killed(vg: Group, number: int, done: bool, active: bool) -> Volume:
    """An exchange that ends at a step of lvm's, with a stranger's volume beside it; the old volume."""
    filled(vg)
    old = vg.add("a", "old", "mine", active=active)
    vg.add("b", "stranger", "qbtools-old:active:a:not-a-mark")
    vg.kill_at = number, done
    try:
        exchange.exchange(old, TEMPORARY, MARK, warn)
        assert not vg.dead
    except Killed:
        vg.dead, vg.kill_at = False, None
    return old


AT_ANY_STEP: Callable[..., Callable[..., None]] = pytest.mark.parametrize(
    ("number", "done", "active"), list(itertools.product(range(STEPS), [False, True], [False, True]))
)


@AT_ANY_STEP
def test_killed_at_any_step(vg: Group, number: int, done: bool, active: bool) -> None:
    """What `qb-snapshot clean` does, in every order in which it may come across the volumes, with the same result."""
    old = killed(vg, number, done, active)
    before, results = dict(vg.volumes), []
    for order in itertools.permutations(before):
        vg.volumes = {name: before[name] for name in order}
        snapshots.clean([], lambda _text: None)
        results.append(vg.volumes)
    assert all(result == results[0] for result in results)
    assert results[0].pop("b") == before["b"]
    (left,) = results[0].values()
    assert left in (old, old._replace(uuid="new"))


@AT_ANY_STEP
def test_the_volume_is_always_found(vg: Group, number: int, done: bool, active: bool) -> None:
    old = killed(vg, number, done, active)
    assert KIND.exists("vg/a")
    assert vg.volumes["a"].uuid in ("old", "new")
    assert vg.volumes["a"].size == old.size


def test_one_that_is_asked_for_by_its_full_name_is_found_too(vg: Group) -> None:
    vg.add("qbtools_aaaaaaaaaaaaaaa", "old", f"qbtools-old:inactive:a:{MARK}", active=False)
    assert KIND.sizes("vg/a", SourceOptions()) == (1 << 22, 1 << 22)
    with pytest.raises(UsageError):
        KIND.sizes("vg/", SourceOptions())
    with pytest.raises(Failed, match="there is no logical volume b in vg"):
        KIND.sizes("vg/b", SourceOptions())


def test_an_exchange_that_goes_on_is_waited_for(vg: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    vg.add("qbtools_aaaaaaaaaaaaaaa", "old", f"qbtools-old:active:a:{LIVING}", active=False)

    class Held(NoLock):
        def __enter__(self) -> None:
            vg.volumes.clear()
            vg.add("a", "new", str(LIVING))

    monkeypatch.setattr(exchange, "_lock", Held)
    assert KIND.exists("vg/a")
    assert vg.volumes == {"a": vg.add("a", "new", str(LIVING))}


def test_only_what_is_ours_and_dead_is_released(vg: Group) -> None:
    vg.add("qbtools_aaaaaaaaaaaaaaa", "old", f"qbtools-old:active:a:{LIVING}", active=False)
    vg.add("c", "new", str(LIVING))
    vg.add("b", "stranger", "mine")
    before = dict(vg.volumes)
    assert dict(KIND.marked([])) == {"lvm:vg/qbtools_aaaaaaaaaaaaaaa": LIVING}, "both belong to one run"
    for spec, text in (
        ("qbtools_aaaaaaaaaaaaaaa", "may still be active"),
        ("c", "may still be active"),
        ("b", "no mark"),
    ):
        with pytest.raises(Refused, match=text):
            KIND.release(f"lvm:vg/{spec}")
    snapshots.clean([], warn)
    assert vg.volumes == before


def test_killed_between_the_names_and_another_took_the_name(vg: Group) -> None:
    away = vg.add("qbtools_aaaaaaaaaaaaaaa", "old", f"qbtools-old:active:a:{MARK}", active=False)
    stranger = vg.add("a", "stranger")
    with pytest.raises(Failed, match="vg/qbtools_aaaaaaaaaaaaaaa was vg/a, but another volume has that name now"):
        exchange.settle("vg", MARK)
    said: list[str] = []
    assert exchange.repair(vg.volumes.values(), lambda _text: None, said.append)
    assert said == [
        "the exchange of an ended run in vg cannot be completed: "
        "vg/qbtools_aaaaaaaaaaaaaaa was vg/a, but another volume has that name now"
    ]
    assert vg.volumes == {"a": stranger, away.name: away}


def test_volumes_of_live_runs_are_not_touched(vg: Group) -> None:
    vg.add(TEMPORARY, "old", f"qbtools-old:active:a:{LIVING}", active=False)
    vg.add("b", "new", str(LIVING))
    before = dict(vg.volumes)
    assert not exchange.repair(vg.volumes.values(), warn, warn)
    assert not exchange.brought_back("vg/a")
    assert vg.volumes == before
