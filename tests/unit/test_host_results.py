"""The result of a run for each domain, from its lines and its log, as lines and as JSON."""

from __future__ import annotations

from collections.abc import Mapping

from qbtools.hosts import results
from qbtools.hosts.restoring import Made
from qbtools.hosts.results import Passage
from qbtools.hosts.saving import File

RESTORED = [
    Made("vm1/root.img", "work", "root", "file:/h/work/root.img"),
    Made("vm1/private.img", "work", "private", "file:/h/work/private.img"),
    Made("vm2/private.img", "bank-1", "private", "file:/h/bank-1/private.img"),
    Made("vm3/empty", "none", None, None),
]
SIZES = {"vm1/root.img": 1000, "vm1/private.img": None, "vm2/private.img": 500}


Entry = tuple[str, float, float | None, int | None]


def log(*entries: Entry) -> dict[str, Passage]:
    return {name: Passage(begun, ended, size) for name, begun, ended, size in entries}


ALL = (
    ("qubes.xml", 1.0, 2.0, None),
    ("vm1/root.img", 2.0, 4.0, 1000),
    ("vm1/private.img", 4.0, 4.5, 77),
    ("vm2/private.img", 5.0, 6.0, 500),
)


def restored(entries: tuple[Entry, ...], ended: bool = True, going: bool = False) -> dict[str, results.Result]:
    found = results.of_restore(RESTORED, log(*entries), SIZES, ended, going)
    return {result.domain: result for result in found}


def problems(found: dict[str, results.Result]) -> list[str | None]:
    return [result.problem for result in found.values()]


def test_all_is_well() -> None:
    found = restored(ALL)
    assert list(found) == ["work", "bank-1", "none"]
    assert found["work"] == results.Result("work", 2, 1077, 2.5, None)
    assert found["none"] == results.Result("none", 0, 0, 0.0, None)


def test_one_that_is_missing() -> None:
    assert problems(restored(ALL[:3])) == [None, "vm2/private.img is missing in the archive", None]
    assert problems(restored(ALL[:2] + ALL[3:])) == ["vm1/private.img is missing in the archive", None, None]


def test_one_that_failed() -> None:
    failed = (*ALL[:2], ("vm1/private.img", 4.0, None, None), ALL[3])
    assert problems(restored(failed, ended=False, going=True)) == ["vm1/private.img failed", None, None]
    assert problems(restored(failed)) == ["vm1/private.img failed", None, None]


def test_a_run_that_ended_early_leaves_nothing_unless_it_goes_on() -> None:
    assert problems(restored(ALL, ended=False)) == ["the run ended early"] * 3
    assert problems(restored(ALL, ended=False, going=True)) == [None] * 3


def test_one_that_is_larger_than_the_metadata_says() -> None:
    larger = (*ALL[:1], ("vm1/root.img", 2.0, 4.0, 1001), *ALL[2:])
    assert problems(restored(larger)) == ["vm1/root.img has 1001 bytes, but qubes.xml says 1000", None, None]


def test_several_volumes_in_one_file() -> None:
    """A template of Qubes OS 2 to 3.2 is one archive; the sizes of its volumes are unknown."""
    files = [Made("vm5/.", "debian", "root", "x"), Made("vm5/.", "debian", "private", "y")]
    (found,) = results.of_restore(files, log(("vm5/.", 1.0, 3.0, None)), {}, ended=True, going=False)
    assert (found.volumes, found.size, found.problem) == (2, 0, None)


def test_files_that_are_no_volumes() -> None:
    entries = (*ALL[:2], ("vm1/private.img", 4.0, None, None), ("vm1/notes.txt", 7.0, None, None), ALL[3])
    assert results.failed_files(RESTORED, log(*entries)) == ["vm1/notes.txt"]
    assert results.as_document([], 1, ["vm1/notes.txt"])["failed_files"] == ["vm1/notes.txt"]


SAVED = [
    File("vm1/root.img", "volume", 1000, 10, "work", "snapshot", 1, 2, None, "a"),
    File("vm1/private.img", "volume", 500, 10, "work", "snapshot", 2, 2, None, "b"),
    File("vm2/empty", "empty", 0, 0, "none", "stopped", 0, 0, None, ""),
    File("vm3/private.img", "volume", 7, 7, "bank", "stopped", 0, 0, None, "c"),
]


def saved(*entries: Entry, ended: bool = True, causes: Mapping[str, str] = {}) -> list[results.Result]:
    return results.of_saving(SAVED, log(*entries), ended, causes)


def test_what_was_saved() -> None:
    entries = [(name, 1.0, 2.5, None) for name in ("vm1/root.img", "vm1/private.img", "vm2/empty", "vm3/private.img")]
    found = saved(*entries)
    assert found == [
        results.Result("work", 2, 1500, 3.0, None, "snapshot"),
        results.Result("none", 0, 0, 1.5, None, "stopped"),
        results.Result("bank", 1, 7, 1.5, None, "stopped"),
    ]
    assert results.as_document(found, 0)["domains"][0] == {  # type: ignore[index]
        "name": "work",
        "volumes": 2,
        "bytes": 1500,
        "seconds": 3.0,
        "problem": None,
        "state": "snapshot",
        "broken": False,
    }


def test_the_host_tells_why_a_domain_failed() -> None:
    found = saved(("vm1/root.img", 1.0, None, None), causes={"work": "the job was ended"})
    assert found[0].problem == "vm1/root.img failed: the job was ended"


def test_a_backup_that_was_not_completed() -> None:
    found = saved(("vm1/root.img", 1.0, 2.0, None), ("vm1/private.img", 2.0, None, None), ended=False)
    assert [result.problem for result in found] == [
        "vm1/private.img failed",
        "vm2/empty was not saved",
        "vm3/private.img was not saved",
    ]
    entries = [(name, 1.0, 2.5, None) for name in ("vm1/root.img", "vm1/private.img", "vm2/empty", "vm3/private.img")]
    assert {result.problem for result in saved(*entries, ended=False)} == {"the archive is not complete"}
