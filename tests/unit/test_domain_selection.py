"""Which domains and volumes are saved, and which domains are restored."""

from __future__ import annotations

from xml.etree.ElementTree import SubElement

import pytest
from machines import PRIVATE, metadata, template, vm

from qbtools.domains import plan, selection
from qbtools.domains.defaults import Defaults
from qbtools.domains.plan import Options
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import UsageError

HOST = metadata(
    vm("work"),
    vm("work-mail", include_in_backups="True"),
    vm("scratch", include_in_backups="False"),
    template("fedora"),
    vm("disp1", "DispVM", auto_cleanup="True"),
    vm("disp2", "DispVM", auto_cleanup="True", include_in_backups="True"),
    vm("half", features={"qbtools-unfinished": "qbtools-x"}),
)
ALL = ["work", "work-mail", "fedora", "disp2"]

SAVED = [
    ("all that are to be included", (), (), (), ALL),
    ("a pattern", (), ("work*",), (), ["work", "work-mail"]),
    ("two patterns", (), ("work", "fed?ra"), (), ["work", "fedora"]),
    ("a pattern is no name: include_in_backups counts", (), ("*",), (), ALL),
    ("left out", (), (), ("work*",), ["fedora", "disp2"]),
    ("left out goes before a pattern", (), ("work*",), ("*mail",), ["work"]),
    ("only those named", ("fedora",), (), (), ["fedora"]),
    ("named, though not to be included", ("scratch", "disp1"), (), (), ["scratch", "disp1"]),
    ("named, though left out", ("work",), (), ("*",), ["work"]),
    ("named, and by a pattern", ("scratch",), ("work",), (), ["work", "scratch"]),
    ("dom0 is named", ("dom0",), (), (), ["dom0"]),
    ("a set of characters, and case", (), ("[w]ork", "FEDOR[!A]"), (), None),
]


@pytest.mark.parametrize(
    ("named", "include", "exclude", "expected"), [case[1:] for case in SAVED], ids=[case[0] for case in SAVED]
)
def test_for_saving(
    named: tuple[str, ...], include: tuple[str, ...], exclude: tuple[str, ...], expected: list[str] | None
) -> None:
    if expected is None:
        with pytest.raises(UsageError, match="no domain matches"):
            selection.for_saving(HOST, named, include, exclude)
        return
    found = selection.for_saving(HOST, named, include, exclude)
    assert [domain.name for domain in found.chosen] == expected
    others = {one.domain.name for one in found.left_out} | set(expected) | {"dom0"}
    assert others == {domain.name for domain in HOST.domains}


def test_why_domains_are_left_out() -> None:
    found = selection.for_saving(HOST, (), (), ("work",))
    assert {one.domain.name: one.reason for one in found.left_out} == {
        "work": "excluded",
        "scratch": "include_in_backups is not set",
        "disp1": "include_in_backups is not set",
        "half": "an unfinished restore",
    }
    assert {one.reason for one in selection.for_saving(HOST, ("work",), (), ()).left_out} == {
        "not named",
        "an unfinished restore",
    }


@pytest.mark.parametrize(
    ("named", "include", "message"),
    [
        (("gone",), (), "there is no domain gone"),
        (("work*",), (), "there is no domain work*"),
        (("half",), (), "half is an unfinished restore"),
        ((), ("gone*",), "no domain matches gone*"),
        ((), ("work", "dom0"), "no domain matches dom0"),
    ],
)
def test_a_slip_of_the_pen_leaves_nothing_out(named: tuple[str, ...], include: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        selection.for_saving(HOST, named, include, ())
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "expected"), [("True", 1), ("yes", 1), ("1", 1), ("On", 1), ("False", 0), ("no", 0), ("", 1), ("maybe", 0)]
)
def test_what_is_true(text: str, expected: int) -> None:
    found = selection.for_saving(metadata(vm("a", include_in_backups=text)), (), (), ())
    assert len(found.chosen) == expected


def test_only_volumes_that_keep_what_is_written() -> None:
    volumes = (
        {"name": "root", "snap_on_start": "True", "save_on_stop": "False"},
        PRIVATE,
        {"name": "volatile"},
    )
    domain = metadata(vm("a", volumes=volumes)).by_name["a"]
    assert [volume.name for volume in selection.saved_volumes(domain)] == ["private"]


ARCHIVE = metadata(vm("work"), vm("mail"), vm("there", saved=False))


@pytest.mark.parametrize(
    ("include", "exclude", "expected", "warnings"),
    [
        ((), (), {"work", "mail"}, []),
        (("w*",), (), {"work"}, []),
        (("*",), ("w*",), {"mail"}, []),
        ((), ("there", "x"), {"work", "mail"}, ["no domain matches there", "no domain matches x"]),
    ],
)
def test_for_restoring(
    include: tuple[str, ...], exclude: tuple[str, ...], expected: set[str], warnings: list[str]
) -> None:
    said: list[str] = []
    assert selection.for_restoring(ARCHIVE, include, exclude, said.append) == expected
    assert said == warnings


def test_what_was_not_saved_cannot_be_restored() -> None:
    with pytest.raises(UsageError, match="no domain matches there"):
        selection.for_restoring(ARCHIVE, ("there",), (), print)


def of_libvirt() -> Metadata:
    found = metadata(vm("a-b"), vm("a-b-2"), vm("c"))
    for domain, name in zip(found.domains[1:], ("a-b", "a b", "c d"), strict=True):
        SubElement(SubElement(SubElement(domain.element, "libvirt"), "domain"), "name").text = name
    return Metadata(found.root)


def test_either_name_of_a_domain_is_renamed() -> None:
    for rename in {"a b": "x", "c": "y"}, {"a-b-2": "x", "c d": "y"}, {"a b": "x", "a-b-2": "x", "c": "y"}:
        lines = plan.make(of_libvirt(), metadata(), Defaults(), Options(rename=rename)).lines
        assert [(line.domain, line.name) for line in lines] == [("a-b", "a-b"), ("a-b-2", "x"), ("c", "y")]
    twice = Options(rename={"a b": "x", "a-b-2": "y"})
    with pytest.raises(UsageError, match="a-b-2 cannot be renamed to y: it is already renamed to x"):
        plan.make(of_libvirt(), metadata(), Defaults(), twice)


def test_a_domain_of_libvirt_has_two_names() -> None:
    host = of_libvirt()
    assert [domain.other_name for domain in host.domains] == [None, None, "a b", "c d"]

    def chosen(*words: tuple[str, ...]) -> list[str]:
        return [domain.name for domain in selection.for_saving(host, *words).chosen]

    assert chosen(("a b",), (), ()) == chosen(("a-b-2",), (), ()) == chosen((), ("a b",), ()) == ["a-b-2"]
    assert chosen(("a-b",), (), ()) == ["a-b"]
    assert chosen((), ("a*",), ("a b",)) == ["a-b"]
    assert chosen((), ("c ?",), ()) == ["c"]
    with pytest.raises(UsageError, match="there is no domain d e"):
        chosen(("d e",), (), ())
