"""How it went: what the lines and the log of a run make of each domain, as lines and as JSON."""

from __future__ import annotations

import io

import pytest

from qbtools.errors import Damaged, Truncated
from qbtools.hosts import results
from qbtools.streams import Reader

RESTORED = """\
vm1/root.img\twork\troot\tfile:/h/work/root.img
vm1/private.img\twork\tprivate\tfile:/h/work/private.img
vm2/private.img\tbank-1\tprivate\tfile:/h/bank-1/private.img
vm3/empty\tnone\t-\t-
"""
SIZES = {"vm1/root.img": 1000, "vm1/private.img": None, "vm2/private.img": 500}


def reader(text: str) -> Reader:
    return Reader(io.BytesIO(text.encode()), "lines")


def log(*entries: tuple[str, float, float | None, str]) -> dict[str, results.Passage]:
    text = ""
    for name, begun, ended, size in entries:
        text += f"begin\t{name}\t{begun:.6f}\t-\n"
        if ended is not None:
            text += f"end\t{name}\t{ended:.6f}\t{size}\n"
    return results.read_log(reader(text))


ALL = (
    ("qubes.xml", 1.0, 2.0, "-"),
    ("vm1/root.img", 2.0, 4.0, "1000"),
    ("vm1/private.img", 4.0, 4.5, "77"),
    ("vm2/private.img", 5.0, 6.0, "500"),
)


def restored(
    entries: tuple[tuple[str, float, float | None, str], ...], ended: bool = True, going: bool = False
) -> dict[str, results.Result]:
    found = results.of_restore(results.read_restored(reader(RESTORED)), log(*entries), SIZES, ended, going)
    return {result.domain: result for result in found}


def problems(found: dict[str, results.Result]) -> list[str | None]:
    return [result.problem for result in found.values()]


def test_all_is_well() -> None:
    found = restored(ALL)
    assert list(found) == ["work", "bank-1", "none"]
    assert found["work"] == results.Result("work", 2, 1077, 2.5, None)
    assert found["none"] == results.Result("none", 0, 0, 0.0, None)
    assert list(results.to_lines(found.values())) == ["work\tok\n", "bank-1\tok\n", "none\tok\n"]


def test_one_that_never_came() -> None:
    assert problems(restored(ALL[:3])) == [None, "vm2/private.img did not come", None]
    assert problems(restored(ALL[:2] + ALL[3:])) == ["vm1/private.img did not come", None, None]


def test_one_that_failed() -> None:
    failed = (*ALL[:2], ("vm1/private.img", 4.0, None, "-"), ALL[3])
    assert problems(restored(failed, ended=False, going=True)) == ["vm1/private.img failed", None, None]
    assert list(results.to_lines(restored(failed).values()))[0] == "work\tfailed\n"


def test_a_run_that_ended_early_leaves_nothing_unless_it_goes_on() -> None:
    assert problems(restored(ALL, ended=False)) == ["the run ended early"] * 3
    assert problems(restored(ALL, ended=False, going=True)) == [None] * 3


def test_one_that_is_larger_than_the_metadata_says() -> None:
    larger = (*ALL[:1], ("vm1/root.img", 2.0, 4.0, "1001"), *ALL[2:])
    assert problems(restored(larger)) == ["vm1/root.img has 1001 bytes, but qubes.xml says 1000", None, None]


def test_several_volumes_in_one_file() -> None:
    """A template of Qubes OS 2 to 3.2 is one archive; how large its volumes are nobody says."""
    files = "vm5/.\tdebian\troot\tx\nvm5/.\tdebian\tprivate\ty\n"
    (found,) = results.of_restore(
        results.read_restored(reader(files)), log(("vm5/.", 1.0, 3.0, "-")), {}, ended=True, going=False
    )
    assert (found.volumes, found.size, found.problem) == (2, 0, None)


def test_files_that_are_no_volumes() -> None:
    files = results.read_restored(reader(RESTORED))
    entries = (*ALL[:2], ("vm1/private.img", 4.0, None, "-"), ("vm1/notes.txt", 7.0, None, "-"), ALL[3])
    assert results.failed_files(files, log(*entries)) == ["vm1/notes.txt"]
    assert results.as_document([], 1, ["vm1/notes.txt"])["failed_files"] == ["vm1/notes.txt"]


@pytest.mark.parametrize(
    "text",
    [
        "begin\tvm1/a\n",
        "begin\tvm1/a\t1\t-\n",
        "begin\tvm1/a\t-1.000000\n",
        "end\tvm1/a\t1.000000\t-\n",
        "begin\tvm1/a\t1.000000\nend\tvm1/a\t1.000000\n",
        "came\tvm1/a\t1.000000\n",
        "\n",
    ],
)
def test_a_malformed_log(text: str) -> None:
    with pytest.raises(Damaged):
        results.read_log(reader(text))


def test_malformed_lines() -> None:
    with pytest.raises(Damaged):
        results.read_restored(reader("vm1/root.img\twork\troot\n"))
    with pytest.raises(Truncated):
        results.read_restored(reader("vm1/root.img\twork\troot\tx"))


SAVED = """\
qubes.xml\tmetadata\t300\t300\tdom0\t-\t0\t0\t-\t/x
vm1/root.img\tvolume\t1000\t10\twork\tsnapshot\t1\t2\t-\ta
vm1/private.img\tvolume\t500\t10\twork\tsnapshot\t2\t2\t-\tb
vm2/empty\tempty\t0\t0\tnone\tstopped\t0\t0\t-\t/dev/null
vm3/private.img\tvolume\t7\t7\tbank\tstopped\t0\t0\t-\tc
"""


def saved(*entries: tuple[str, float, float | None, str], ended: bool = True) -> list[results.Result]:
    return results.of_saving(reader(SAVED), log(*entries), ended)


def test_what_was_saved() -> None:
    entries = [(name, 1.0, 2.5, "-") for name in ("vm1/root.img", "vm1/private.img", "vm2/empty", "vm3/private.img")]
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
    }


def test_a_backup_that_was_not_completed() -> None:
    found = saved(("vm1/root.img", 1.0, 2.0, "-"), ("vm1/private.img", 2.0, None, "-"), ended=False)
    assert [result.problem for result in found] == [
        "vm1/private.img failed",
        "vm2/empty was not saved",
        "vm3/private.img was not saved",
    ]
    entries = [(name, 1.0, 2.5, "-") for name in ("vm1/root.img", "vm1/private.img", "vm2/empty", "vm3/private.img")]
    assert {result.problem for result in saved(*entries, ended=False)} == {"the archive is not complete"}
