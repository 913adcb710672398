"""Hosts of qbtools, killed between any two steps: the inventory stays valid, and a second run completes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from devices import mounted
from steps import killed_at

from qbtools.domains import safexml
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Failed, QbError, Refused
from qbtools.hosts import directory, thinpool, unsaved
from qbtools.hosts.local import LocalHost, Places
from qbtools.hosts.store import Store
from qbtools.streams import Reader
from qbtools.volumes.lvm import exchange, facts, source, tools
from qbtools.volumes.lvm.facts import Volume
from qbtools.volumes.marks import Mark

STEPS = ("mkdir", "open", "write", "ftruncate", "fsync", "rename", "unlink", "rmdir", "fchmod", "close")
"""Of the module os: what the host that is a directory does to the disk."""


def document(name: str, unfinished: bool = True, properties: str = "", volumes: str = "root private") -> bytes:
    feature = '<feature name="qbtools-unfinished">x</feature>' * unfinished
    config = "".join(f'<volume name="{volume}" size="1048576" save_on_stop="True"/>' for volume in volumes.split())
    return f"""<qubes><labels><label id="label-1" color="0x0">red</label></labels><properties/><domains>
    <domain id="domain-0" class="AdminVM"><properties><property name="label">red</property></properties></domain>
    <domain id="domain-1" class="StandaloneVM"><properties><property name="name">{name}</property>
    <property name="label">red</property>{properties}</properties><features>{feature}</features>
    <volume-config>{config}</volume-config></domain></domains></qubes>""".encode()


def silent(_text: str) -> None:
    pass


def on_disk(place: Path) -> LocalHost:
    return LocalHost(Store(str(place / "qubes.xml")), directory.Directory(str(place)), silent)


def inventory(host: LocalHost) -> Metadata:
    return Metadata(safexml.parse(host.inventory()))


def left(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*")} - {"qubes.xml", "qubes.xml.lock"}


WHOLE = {"work", "work/root.img", "work/private.img"}


def test_a_directory_whose_create_is_killed(tmp_path: Path) -> None:
    """Killed at any step: the next create with the same name completes it, one with another name removes it."""
    for step in range(1000):
        place = tmp_path / str(step)
        place.mkdir()
        was_killed = killed_at(STEPS, step, lambda place=place: on_disk(place).create(document("work")))
        host = on_disk(place)
        if "work" in inventory(host).by_name:
            assert left(place) >= WHOLE
            assert len(host.volumes("work")) == 2
            host.remove("work")
        host.create(document("other" if step % 2 else "work"))
        host.remove("other" if step % 2 else "work")
        assert left(place) <= ({"work"} if step % 2 else set()), "an empty directory is nobody's"
        if not was_killed:
            break
    assert step > 15


def test_a_directory_whose_remove_is_killed(tmp_path: Path) -> None:
    for step in range(1000):
        place = tmp_path / str(step)
        place.mkdir()
        on_disk(place).create(document("work"))
        was_killed = killed_at(STEPS, step, lambda place=place: on_disk(place).remove("work"))
        host = on_disk(place)
        listed = "work" in inventory(host).by_name
        assert left(place) >= WHOLE or not listed
        host.remove("work")
        assert not left(place), step
        if not was_killed:
            break
    assert step > 10


def test_a_directory_of_another_user(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/private.img").write_bytes(b"precious")
    host = on_disk(tmp_path)
    with pytest.raises(Refused, match="already exists, but no domain has that name"):
        host.create(document("work"))
    host.remove("work")
    assert (tmp_path / "work/private.img").read_bytes() == b"precious"
    assert "work" not in inventory(host).by_name


def test_what_create_would_refuse_is_known_before(tmp_path: Path) -> None:
    host = on_disk(tmp_path)
    host.check(document("work"))
    assert os.listdir(tmp_path) == []
    (tmp_path / "work").mkdir()
    host.check(document("work"))
    (tmp_path / "work/private.img").write_bytes(b"precious")
    with pytest.raises(Refused, match=r"^work: .*/work already exists, but no domain has that name"):
        host.check(document("work"))
    mark = tmp_path / f"work/.qbtools-unfinished.{Mark.own()._replace(start=1)}"
    mark.touch()
    host.check(document("work"))
    host.create(document("work"))
    with pytest.raises(Refused, match="the domain work already exists"):
        host.check(document("work"))


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    with mounted(tmp_path / "host", "none", "tmpfs", "-o", "ro") as place:
        with pytest.raises(Failed, match="cannot replace .*qubes.xml: Read-only file system"):
            on_disk(place).check(document("work"))


def test_directories_of_another_live_run_are_left_alone(tmp_path: Path) -> None:
    """The directory of a live run for another name."""
    (tmp_path / "work").mkdir()
    mark = tmp_path / f"work/.qbtools-unfinished.{Mark.own()}"
    mark.touch()
    on_disk(tmp_path).create(document("other"))
    assert mark.exists()
    on_disk(tmp_path).create(document("work"))
    assert not mark.exists(), "who has its lock knows that nobody is making it any more"


def test_an_image_in_use_is_not_removed(tmp_path: Path) -> None:
    host = on_disk(tmp_path)
    host.create(document("work"))
    with (tmp_path / "work/root.img").open("r+b"):
        assert "\tyes\tyes\n" in host.volumes("work")[0]
        with pytest.raises(Refused, match="in use"):
            host.remove("work")
    assert left(tmp_path) == WHOLE
    assert "work" in inventory(host).by_name


def test_only_domains_of_a_restore_are_changed(tmp_path: Path) -> None:
    host = on_disk(tmp_path)
    host.create(document("work"))
    os.truncate(tmp_path / "work/root.img", 5 << 20)
    host.set("work", document("work", unfinished=False, properties='<property name="memory">300</property>'))
    domain = inventory(host).by_name["work"]
    assert (domain.properties["memory"], domain.properties["qid"]) == ("300", "1")
    assert [volume.size for volume in domain.volumes()] == [5 << 20, 1 << 20], "they are told as they are"
    for act in lambda: host.remove("work"), lambda: host.set("work", document("work")):
        with pytest.raises(Refused, match="not a domain that a restore left unfinished"):
            act()
    for name in "dom0", "none", "../x", "-rf":
        with pytest.raises(QbError):
            host.remove(name)
    assert left(tmp_path) == WHOLE


def test_texts_that_a_line_cannot_contain(tmp_path: Path) -> None:
    place = tmp_path / "ü"
    place.mkdir()
    with pytest.raises(Failed, match="only printable ASCII is allowed"):
        on_disk(place).create(document("work"))


def test_the_file_keeps_its_mode(tmp_path: Path) -> None:
    host = on_disk(tmp_path)
    host.create(document("work"))
    assert (tmp_path / "qubes.xml").stat().st_mode & 0o777 == 0o600
    (tmp_path / "qubes.xml").chmod(0o640)
    host.remove("work")
    assert (tmp_path / "qubes.xml").stat().st_mode & 0o777 == 0o640


# --- a pool, as far as lvm is used ---


class Killed(BaseException):
    """SIGKILL: the program does nothing more."""


class Group:
    """A group in memory. lists: how often it was listed. kill_at: the program is killed after so many commands."""

    def __init__(self) -> None:
        pool = frozenset({"thin", "pool"})
        self.volumes = {"pool": Volume("vg", "pool", "0", 1, pool, frozenset(), "", "", ("",), False, False, True)}
        self.lists = self.count = 0
        self.kill_at = 1 << 30

    def group(self, _name: str) -> dict[str, Volume]:
        self.lists += 1
        return dict(self.volumes)

    def step(self) -> None:
        self.count += 1
        if self.count > self.kill_at:
            raise Killed

    def lvm(self, program: str, *words: str) -> str:
        self.step()
        name = words[words.index("-n") + 1] if "-n" in words else words[-1].removeprefix("vg/")
        tags = tuple(value for option, value in zip(words, words[1:], strict=False) if option == "--addtag")
        if program == "lvcreate":
            assert name not in self.volumes
            thin = frozenset({"thin"})
            volume = Volume("vg", name, name, 1 << 22, thin, frozenset(), "pool", "", tags, False, False, False)
            self.volumes[name] = volume
        elif program == "lvchange":
            gone = {value for option, value in zip(words, words[1:], strict=False) if option == "--deltag"}
            old = self.volumes[name]
            self.volumes[name] = old._replace(tags=(*(tag for tag in old.tags if tag not in gone), *tags))
        else:
            raise AssertionError(program)
        return ""

    def remove(self, full: str, attempts: int = 0) -> None:
        self.step()
        self.volumes.pop(full.removeprefix("vg/"), None)

    def names(self) -> set[str]:
        return self.volumes.keys() - {"pool"}


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[Group]:
    made = Group()
    monkeypatch.setattr(tools, "lvm", made.lvm)
    monkeypatch.setattr(facts, "group", made.group)
    monkeypatch.setattr("qbtools.volumes.lvm.snapshot.remove", made.remove)
    monkeypatch.setattr(source, "used", lambda volume: volume.size)
    monkeypatch.setattr(exchange, "repair", lambda *_: False)
    yield made


class Dying(Store):
    """A file whose replacement counts as a step. Nothing is done after the end of the program."""

    def __init__(self, path: str, group: Group) -> None:
        super().__init__(path)
        self.group = group

    def replace(self, root: object) -> None:
        self.group.step()
        super().replace(root)  # type: ignore[arg-type]

    def read(self) -> Metadata:
        if self.group.count > self.group.kill_at:
            raise Killed
        return super().read()


def in_pool(group: Group, state: Path) -> LocalHost:
    places: Places = thinpool.ThinPool("vg/pool", str(state), silent, silent)
    return LocalHost(Dying(str(state / "vg/pool/qubes.xml"), group), places, silent)


@pytest.fixture
def _dead_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = Mark.own()._replace(start=1)
    monkeypatch.setattr(Mark, "own", classmethod(lambda _cls: dead))


def test_names_that_a_pool_cannot_have(tmp_path: Path, group: Group) -> None:
    """A logical volume that lvm refuses would stop the complete restore; the plan chooses another name."""
    assert "without\t_tdata\n" in in_pool(group, tmp_path).defaults()
    assert "_tdata" not in on_disk(tmp_path).defaults()


@pytest.mark.usefixtures("_dead_marks")
@pytest.mark.parametrize("name", ["work", "work.mail"])
@pytest.mark.parametrize("verb", ["create", "remove"])
def test_a_pool_whose_run_is_killed(tmp_path: Path, group: Group, verb: str, name: str) -> None:
    whole = {f"vm-{name}-root", f"vm-{name}-private"}
    for step in range(100):
        state = tmp_path / str(step)
        if verb == "remove":
            in_pool(group, state).create(document(name))
        group.count, group.kill_at = 0, step
        was_killed = False
        try:
            host = in_pool(group, state)
            host.create(document(name)) if verb == "create" else host.remove(name)
        except Killed:
            was_killed = True
        group.kill_at = 1 << 30
        host = in_pool(group, state)
        if name in inventory(host).by_name:
            assert group.names() == whole
            host.remove(name)
        elif verb == "remove":
            in_pool(group, state).remove(name)
            assert not group.names()
        in_pool(group, state).create(document(name))
        assert group.names() == whole
        assert all(set(group.volumes[one].tags) <= {""} for one in whole)
        in_pool(group, state).remove(name)
        assert not group.names()
        if not was_killed:
            break
    assert step > 4


def test_all_volumes_are_listed_once(tmp_path: Path, group: Group) -> None:
    for act in (
        lambda host: host.create(document("work")),
        lambda host: host.volumes("work"),
        lambda host: host.set("work", document("work")),
        lambda host: host.remove("work"),
    ):
        group.lists = 0
        act(in_pool(group, tmp_path))
        assert group.lists == 1
    assert not group.names()


def test_a_volume_of_another_owner(tmp_path: Path, group: Group) -> None:
    group.lvm("lvcreate", "-n", "vm-work-private", "vg")
    with pytest.raises(Refused, match="vg/vm-work-private already exists"):
        in_pool(group, tmp_path).create(document("work"))
    in_pool(group, tmp_path).remove("work")
    assert group.names() == {"vm-work-private"}


def test_the_same_volume_for_two_domains(tmp_path: Path, group: Group) -> None:
    """vm-a-b-c is the volume b-c of a, and c of a-b."""
    in_pool(group, tmp_path).create(document("a", volumes="b-c"))
    with pytest.raises(Refused):
        in_pool(group, tmp_path).create(document("a-b", volumes="c"))
    in_pool(group, tmp_path).remove("a-b")
    assert group.names() == {"vm-a-b-c"}


def test_a_volume_that_is_only_named(tmp_path: Path, group: Group) -> None:
    """An archive can name any volume as an unsaved one of a: volumes of other domains must not be removed with a."""
    in_pool(group, tmp_path).create(document("a-b", volumes="c"))
    in_pool(group, tmp_path).set("a-b", document("a-b", unfinished=False))
    named = document("a", volumes="root b-c").replace(
        b'name="b-c" size="1048576" save_on_stop="True"', b'name="b-c" save_on_stop="False"'
    )
    in_pool(group, tmp_path).create(named)
    in_pool(group, tmp_path).remove("a")
    assert group.names() == {"vm-a-b-c"}


def test_a_machine_that_runs_in_a_pool(tmp_path: Path, group: Group) -> None:
    """It writes to -snap, which replaces the other volume when the machine stops; until then nothing is removed."""
    in_pool(group, tmp_path).create(document("work"))
    private = group.volumes["vm-work-private"]
    group.volumes["vm-work-private-snap"] = private._replace(name="vm-work-private-snap", origin="vm-work-private")
    host = in_pool(group, tmp_path)
    assert [line.split("\t")[4] for line in host.volumes("work")] == ["no", "yes"]
    before = dict(group.volumes)
    with pytest.raises(Refused, match="its machine writes to vg/vm-work-private-snap"):
        host.remove("work")
    assert group.volumes == before and "work" in inventory(host).by_name


def unsaved_of(host: LocalHost) -> dict[str, tuple[str | None, str]]:
    found = unsaved.read(Reader(io.BytesIO("".join(host.unsaved()).encode())))
    return {one.path: (one.domain, one.reason) for one in found}


def test_what_a_directory_has_that_is_not_saved(tmp_path: Path) -> None:
    host = on_disk(tmp_path)
    host.create(document("work"))
    assert host.unsaved() == []
    folder = tmp_path / "work"
    for name in ("notes.txt", ".hidden", "disk.qcow2", "my notes", "Größe", "data.img", "empty", "a\nb", "n" * 89):
        (folder / name).touch()
    (folder / "keys").mkdir()
    (folder / "-x").touch()
    os.mkfifo(folder / "pipe")
    (folder / "nowhere").symlink_to("no-such")
    (folder / "linked").symlink_to("notes.txt")
    (folder / f".{Mark.own()}.01234567").touch()
    (folder / f".qbtools-unfinished.{Mark.own()}").touch()
    for name in ("dom0/user", "dom0/.x", "new", "nothing"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "dom0/file").touch()
    (tmp_path / "new/root.img").touch()
    (tmp_path / "stray.img").touch()
    (tmp_path / "half").mkdir()
    (tmp_path / f"half/.qbtools-unfinished.{Mark.own()}").touch()
    with Store(str(tmp_path / "qubes.xml")).locked():
        saved = [line.split("\t")[0] for line in host.files("work")]
        assert saved == [".hidden", "disk.qcow2", "keys", "linked", "notes.txt"]
        assert host.files("dom0") == [f"dom0-home/user\t{tmp_path}/dom0/user\n"]
        found = unsaved_of(host)
    ours = {path.removeprefix(f"{tmp_path}/"): why for path, why in found.items()}
    cannot = ("work", "an archive cannot contain this name")
    assert {name: (domain, why.partition(":")[0]) for name, (domain, why) in ours.items()} == {
        "work/my notes": cannot,
        "work/Größe": cannot,
        "work/a\nb": cannot,
        "work/-x": cannot,
        f"work/{'n' * 89}": cannot,
        "work/data.img": ("work", "qubes.xml has no such volume"),
        "work/empty": ("work", "this name has another meaning in an archive"),
        "work/pipe": ("work", "neither a file nor a directory"),
        "work/nowhere": ("work", "cannot be read"),
        "dom0/.x": ("dom0", "only a directory with the name of a user is a home of dom0"),
        "dom0/file": ("dom0", "only a directory with the name of a user is a home of dom0"),
        "new": (None, "no domain in qubes.xml has it"),
        "stray.img": (None, "no domain in qubes.xml has it"),
        "half": (None, "an unfinished restore"),
    }


def test_what_cannot_be_read_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = on_disk(tmp_path)
    host.create(document("work"))
    (tmp_path / "work/notes.txt").touch()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert host.files("work") == []
    assert unsaved_of(host) == {f"{tmp_path}/work/notes.txt": ("work", "cannot be read: Permission denied")}


def test_what_a_pool_has_that_is_not_saved(tmp_path: Path, group: Group) -> None:
    in_pool(group, tmp_path).create(document("work"))
    real = group.volumes["vm-work-root"]
    more = ("vm-work-root-snap", "vm-work-private-1234-back", "vm-work-data", "vm-new-root", "swap")
    for name in more:
        group.volumes[name] = real._replace(name=name)
    group.volumes["vm-else-root"] = real._replace(name="vm-else-root", pool="other")
    half = f"qbtools-unfinished:half:{Mark.own()}"
    group.volumes["vm-half-root"] = real._replace(name="vm-half-root", tags=(half,))
    place = tmp_path / "vg/pool/work"
    place.mkdir()
    (place / "root.img").touch()
    assert unsaved_of(in_pool(group, tmp_path)) == {
        "vg/vm-work-data": (None, "no domain in qubes.xml has it"),
        "vg/vm-new-root": (None, "no domain in qubes.xml has it"),
        f"{place}/root.img": ("work", "qubes.xml has no such volume"),
    }


def test_no_domain_has_the_name_of_the_metadata(tmp_path: Path) -> None:
    """It would need a directory that is called qubes.xml."""
    assert "without\tqubes.xml\n" in on_disk(tmp_path).defaults()
