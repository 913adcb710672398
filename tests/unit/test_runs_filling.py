"""Restoring volumes to files and pools: the target of each, what is refused, and which files must be in the archive."""

from __future__ import annotations

import machines
import pytest

from qbtools.errors import Damaged, QbError, Refused, UsageError
from qbtools.runs.filling import Filling, Where, read_map, routes
from qbtools.volumes import spots

ROOT = {**machines.PRIVATE, "name": "root", "size": "8192"}
PRIVATE = {**machines.PRIVATE, "size": "4096"}
ARCHIVE = machines.metadata(
    machines.vm("one", "StandaloneVM", volumes=(ROOT, PRIVATE), netvm=""),
    machines.vm("two", "StandaloneVM", volumes=(PRIVATE,), netvm=""),
)
ONE, TWO = (ARCHIVE.by_name[name].features["backup-path"] for name in ("one", "two"))
TO = Where("./to", None, {}, [])


def fill(where: Where) -> tuple[Filling, list[str]]:
    warnings: list[str] = []
    return Filling(where, lambda _: None, warnings.append), warnings


def routed(where: Where) -> dict[str, str]:
    return dict(fill(where)[0].metadata(ARCHIVE))


def come(filling: Filling, *names: str, printed: str = "4096") -> None:
    for name in names:
        filling.begun(name)
        filling.done(name, f"{printed}\n")


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (TO, "file:./to/one/root.img"),
        (TO._replace(to=None, pool="lvm:vg/pool"), "lvm:vg/pool/one-root"),
        (TO._replace(mapped={"one:root": "/dev/x"}), "/dev/x"),
        (TO._replace(to=None, pool="lvm:vg/pool", mapped={"one:root": "/dev/x"}), "/dev/x"),
        (TO._replace(to=None, mapped={"one:private": "/dev/x"}), None),
    ],
)
def test_where_a_volume_goes(where: Where, expected: str | None) -> None:
    assert where.target("one", "root") == expected


def test_read_map() -> None:
    assert read_map([]) == {}
    assert read_map(["a:b=c=d", "a:c=lvm:x/y"]) == {"a:b": "c=d", "a:c": "lvm:x/y"}


@pytest.mark.parametrize(
    "word", ["", "a", "a:b", "a:b=", "a=b", ":b=c", "a:=c", "a:b=c\td", "a:b=c\nd", "a/b:c=d", "a:b/c=d", "a\n:b=c"]
)
def test_a_map_that_makes_no_sense(word: str) -> None:
    with pytest.raises(UsageError, match="^--map: not DOMAIN:VOLUME=TARGET: "):
        read_map([word])


def test_a_map_that_is_given_twice() -> None:
    with pytest.raises(UsageError, match="^--map: a:b is given twice$"):
        read_map(["a:b=c", "a:b=d"])


def test_routes() -> None:
    assert routed(TO._replace(overwrite=True)) == {
        f"{ONE}root.img": "volume:--create --overwrite --parents:file:./to/one/root.img",
        f"{ONE}private.img": "volume:--create --overwrite --parents:file:./to/one/private.img",
        f"{TWO}private.img": "volume:--create --overwrite --parents:file:./to/two/private.img",
    }
    assert routed(TO._replace(to=None, pool="file:.", only=["two"])) == {
        f"{TWO}private.img": "volume:--create:file:./two-private"
    }


def test_the_route_of_volumes_that_share_a_file() -> None:
    places = {"vm1/.": [("root", "/a"), ("private", "/b")]}
    assert list(routes(places, lambda _targets: ["--create"])) == [("vm1/.", "many:--create:root=/a\tprivate=/b")]


@pytest.mark.parametrize(
    ("where", "kind", "message"),
    [
        (TO._replace(only=["three"]), UsageError, "the archive has no domain three"),
        (TO._replace(mapped={"one:volatile": "x"}), UsageError, "the archive has no volume one:volatile"),
        (TO._replace(mapped={"one:private": "x"}, to=None), UsageError, "no target given for one:root"),
        (TO._replace(only=["dom0"]), UsageError, "the archive has no domain dom0"),
    ],
)
def test_what_the_archive_does_not_have(where: Where, kind: type[QbError], message: str) -> None:
    with pytest.raises(kind) as caught:
        routed(where)
    assert caught.value.message == message
    assert caught.value.hint


def test_an_archive_without_a_volume() -> None:
    with pytest.raises(Refused, match="^no volume to restore$"):
        fill(TO)[0].metadata(machines.metadata())


def test_everything_was_read() -> None:
    filling, warnings = fill(TO)
    filling.metadata(ARCHIVE)
    come(filling, f"{ONE}root.img", f"{ONE}private.img", f"{TWO}private.img")
    filling.finish()
    assert warnings == []


def test_a_volume_is_missing() -> None:
    """A missing volume is an error even if it is not wanted: the archive is incomplete."""
    for missing in (f"{ONE}private.img", f"{TWO}private.img"):
        filling, _ = fill(TO._replace(only=["one"]))
        filling.metadata(ARCHIVE)
        come(filling, *({f"{ONE}root.img", f"{ONE}private.img"} - {missing}))
        if missing != f"{TWO}private.img":
            filling.passed(f"{TWO}private.img")
        with pytest.raises(Damaged, match="is not in the archive"):
            filling.finish()


def test_no_wanted_file_was_read() -> None:
    filling, _ = fill(TO)
    filling.metadata(machines.metadata(machines.vm("one", "StandaloneVM", volumes=(PRIVATE,), netvm="")))
    filling.passed(f"{ONE}private.img")
    with pytest.raises(Refused, match="^nothing was restored$"):
        filling.finish()


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        ("8193", "is a volume of 8193 bytes, but qubes.xml says 8192"),
        ("", "its size was not reported"),
        ("a lot", "its size was not reported"),
        ("-1", "its size was not reported"),
    ],
)
def test_a_size_that_cannot_be(printed: str, message: str) -> None:
    filling, _ = fill(TO)
    filling.metadata(ARCHIVE)
    with pytest.raises(Damaged, match=message):
        come(filling, f"{ONE}root.img", printed=printed)


def test_a_file_that_occurs_twice() -> None:
    filling, _ = fill(TO)
    filling.metadata(ARCHIVE)
    come(filling, f"{ONE}root.img")
    with pytest.raises(Damaged, match="occurs twice in the archive"):
        come(filling, f"{ONE}root.img")


def test_what_is_not_restored_is_named() -> None:
    """Except unwanted domains, and files that only represent a domain."""
    filling, warnings = fill(TO._replace(only=["one"]))
    filling.metadata(ARCHIVE)
    for name in (f"{ONE}firewall.xml", f"{ONE}empty", f"{TWO}firewall.xml"):
        filling.passed(name)
    assert warnings == [f"{ONE}firewall.xml is not a volume: it is not restored"]


def test_an_archive_without_metadata() -> None:
    """Files keep their names; their targets are not known otherwise."""
    filling, _ = fill(TO)
    assert list(filling.no_metadata("a/b.img")) == [("*", "below:--create --parents:file:./to")]
    come(filling, "a/b.img")
    filling.finish()


def test_files_without_metadata_that_would_replace_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on vfat. From a pipe only the first name is known."""
    monkeypatch.setattr("qbtools.runs.filling.archived", lambda _archive: iter(("a/b.img", "A/b.img")))
    fill(TO._replace(overwrite=True))[0].no_metadata("a/b.img")
    monkeypatch.setattr(spots, "are_one", lambda *_names: True)
    with pytest.raises(Refused, match=r"^a/b.img and A/b.img have the same target: file:./to/A/b.img$"):
        fill(TO)[0].no_metadata("a/b.img")
    monkeypatch.setattr("qbtools.runs.filling.archived", lambda _archive: iter(()))
    fill(TO)[0].no_metadata("a/b.img")
    fill(TO._replace(overwrite=True, archive="a.qb"))[0].no_metadata("a/b.img")
    with pytest.raises(Refused, match="files of the archive could replace each other"):
        fill(TO._replace(overwrite=True))[0].no_metadata("a/b.img")


@pytest.mark.parametrize(
    "where", [TO._replace(to=None, pool="x"), TO._replace(mapped={"a:b": "c"}), TO._replace(only=["a"])]
)
def test_what_needs_metadata(where: Where) -> None:
    with pytest.raises(UsageError, match="^the archive has no metadata$"):
        fill(where)[0].no_metadata("a/b.img")


def test_an_archive_without_metadata_of_which_nothing_came() -> None:
    filling, _ = fill(TO)
    filling.no_metadata("a/b.img")
    with pytest.raises(Refused, match="^nothing was restored$"):
        filling.finish()
