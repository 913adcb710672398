"""Files from an archive are compared with qubes.xml."""

from __future__ import annotations

import io

import pytest

from qbtools.domains import arrivals
from qbtools.domains.inventory import Entry
from qbtools.errors import Damaged, Truncated
from qbtools.streams import Reader

ENTRIES = [
    Entry("work", "StandaloneVM", "root", "vm1/root.img", 1000),
    Entry("work", "StandaloneVM", "private", "vm1/private.img", None),
    Entry("bare", "DispVM", None, "vm12/empty", 0),
]
LIST = "".join(entry.to_line() for entry in ENTRIES)
CAME = "came\tvm1/root.img\t1000\ncame\tvm1/private.img\t77\ncame\tvm12/empty\t0\n"


def check(text: str, known: list[Entry] | None = None) -> tuple[int, list[str]]:
    warnings: list[str] = []
    count = arrivals.check(Reader(io.BytesIO(text.encode("latin-1"))), warnings.append, known)
    return count, warnings


def test_all_came() -> None:
    assert check(LIST + CAME + "end\n") == (3, [])
    assert check(CAME + "end\n", ENTRIES) == (3, [])
    assert check("came\tqubes.xml\t-\n" + CAME + "end\n", ENTRIES) == (4, [])


def test_nothing_saved_and_nothing_came() -> None:
    assert check("end\n") == (0, [])
    assert check("end\n", []) == (0, [])


def test_further_files() -> None:
    further = "".join(f"came\tvm1/{name}\t5\n" for name in ("firewall.xml", "apps", "keys"))
    assert check(CAME + further + "end\n", ENTRIES) == (6, [])


def test_unknown_files_get_a_warning() -> None:
    more = "came\tvm1/volatile.img\t5\ncame\tvm1/x/y\t-\ncame\tdom0-home/user\t-\n"
    _, warnings = check(CAME + more + "end\n", ENTRIES)
    assert warnings == [
        f"qubes.xml does not mention {name}" for name in ("vm1/volatile.img", "vm1/x/y", "dom0-home/user")
    ]


def test_any_file_represents_a_domain_without_volumes() -> None:
    came = CAME.replace("vm12/empty\t0", "vm12/firewall.xml\t500")
    assert check(came + "end\n", ENTRIES) == (3, [])


def test_the_home_itself_must_be_in_the_archive() -> None:
    home = [Entry("dom0", "AdminVM", None, "dom0-home/user", None)]
    assert check("came\tdom0-home/user\t-\nend\n", home) == (1, [])
    with pytest.raises(Damaged, match="dom0-home/user of dom0 is not in the archive"):
        check("came\tdom0-home/other\t-\nend\n", home)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CAME.replace("came\tvm1/root.img\t1000\n", ""), "vm1/root.img of work is not in the archive"),
        (CAME.replace("came\tvm1/private.img\t77\n", ""), "vm1/private.img of work is not in the archive"),
        (CAME.replace("came\tvm12/empty\t0\n", ""), "vm12/empty of bare is not in the archive"),
        ("", "vm1/root.img of work is not in the archive, and 2 more"),
        (CAME.replace("1000", "1001"), "vm1/root.img is a volume of 1001 bytes, but qubes.xml says 1000"),
        (CAME.replace("empty\t0", "empty\t1"), "vm12/empty is a volume of 1 bytes"),
        (CAME + "came\tvm2/root.img\t1\n", "vm2/root.img belongs to no saved domain"),
        (CAME + "came\tvm121/root.img\t1\n", "vm121/root.img belongs to no saved domain"),
        (CAME + "came\tfirewall.xml\t1\n", "firewall.xml belongs to no saved domain"),
        (CAME + "came\tvm1\t1\n", "vm1 belongs to no saved domain"),
        (CAME + "came\tvm1/root.img\t1000\n", "vm1/root.img occurs twice in the archive"),
        (CAME + "came\tqubes.xml\t-\ncame\tqubes.xml\t-\n", "qubes.xml occurs twice in the archive"),
        (
            CAME + "came\tvm1/firewall.xml\t1\ncame\tvm1/firewall.xml\t1\n",
            "vm1/firewall.xml occurs twice in the archive",
        ),
        (CAME + "came\t../x\t1\n", "../x: not a relative path"),
        (CAME + "came\tvm1/../x\t1\n", "vm1/../x: not a relative path"),
        (CAME + "came\t/vm1/x\t1\n", "/vm1/x: not a relative path"),
        (CAME + "came\t\t1\n", "not a relative path"),
        (CAME + "came\tqb-manifest\t1\n", "a reserved name"),
        (CAME + "came\tvm1/x\t01\n", "line 4: not a size in bytes: 01"),
        (CAME + "came\tvm1/x\n", "line 4 is neither"),
        (CAME + "gone\tvm1/x\t1\n", "line 4 is neither"),
        (CAME + "end\n", "line 5 follows the end"),
        (CAME + LIST, "line 4 is neither"),
        (CAME.replace("\n", "\r\n"), "line 1 has characters"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(Damaged) as caught:
        check(text + "end\n", ENTRIES)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LIST + ENTRIES[0].to_line() + CAME, "vm1/root.img is listed twice"),
        (LIST + "x\tAppVM\troot\tvm1/root.img\t1\n" + CAME, "vm1/root.img is listed twice"),
        (LIST + "x\tAppVM\tdata\tvm1/data.img\t1\n" + CAME, "work and x have the same path: vm1/"),
        (LIST + "x\tAppVM\tdata\t../data.img\t1\n" + CAME, "line 4: not the name of a file of x: ../data.img"),
    ],
)
def test_lists_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(Damaged) as caught:
        check(text + "end\n")
    assert message in caught.value.message


@pytest.mark.parametrize("text", ["", LIST, LIST + CAME, CAME])
def test_no_end_is_no_success(text: str) -> None:
    with pytest.raises(Truncated, match="without its end line"):
        check(text, None if text.startswith("work") or not text else ENTRIES)


def test_every_cut_is_noticed() -> None:
    text = LIST + CAME + "end\n"
    for length in range(len(text)):
        with pytest.raises(Damaged):
            check(text[:length])
