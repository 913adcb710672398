"""Names for domains of libvirt, and the URIs of a libvirt on this machine."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbtools.domains import names
from qbtools.errors import UsageError
from qbtools.hosts.libvirt import naming, uri
from qbtools.hosts.libvirt.virsh import Named


def assigned(*of: str) -> list[str]:
    """The name that each of these domains gets."""
    found = {uuid: name for name, uuid in naming.assigned(Named(str(at), name) for at, name in enumerate(of)).items()}
    return [found[str(at)] for at in range(len(of))]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("work", "work"),
        ("a.b_c-d", "a.b_c-d"),
        ("a b", "a-b"),
        ("ä", "vm--"),
        ("-x", "vm--x"),
        ("1vm", "vm-1vm"),
        ("a:b", "a-b"),
        ("a\tb", "a-b"),
        ("a\nb", "a-b"),
        ("\udcff", "vm--"),
        ("", "vm-"),
        ("none", "vm-none"),
        ("default", "vm-default"),
        ("dom0", "vm-dom0"),
        ("a-dm", "vm-a-dm-e7b1ca09"),
        ("x" * 31, "x" * 31),
        ("x" * 32, "x" * 22 + "-c62e4615"),
        ("1" * 40, "vm-" + "1" * 19 + "-468d019e"),
    ],
)
def test_a_name(name: str, expected: str) -> None:
    assert assigned(name) == [expected]


def test_clashes_get_numbers_and_the_order_does_not_matter() -> None:
    of = ("a-b", "a:b", "a b", "a\tb")
    for order in itertools.permutations(of):
        assert dict(zip(order, assigned(*order), strict=True)) == {
            "a-b": "a-b",
            "a\tb": "a-b-2",
            "a b": "a-b-3",
            "a:b": "a-b-4",
        }
    assert assigned("x y", "x-y-2", "x:y", "x-y") == ["x-y-3", "x-y-2", "x-y-4", "x-y"]
    long = "y" * 30
    assert assigned(f"{long} ", f"{long}:") == [f"{long}-", f"{long[:29]}-2"]


# Bytes that are no UTF-8 are read as surrogates of this range.
CHARACTERS = st.characters(codec="utf-8", exclude_characters="/\n") | st.characters(
    min_codepoint=0xDC80, max_codepoint=0xDCFF
)


@given(st.lists(st.text(CHARACTERS, max_size=40), unique=True, max_size=8))
def test_every_name_is_allowed_and_no_two_are_equal(of: list[str]) -> None:
    found = assigned(*of)
    assert [name for name in found if names.new_domain_problem(name)] == []
    assert len(set(found)) == len(of)
    assert [
        (old, new) for old, new in zip(of, found, strict=True) if not names.new_domain_problem(old) and old != new
    ] == []
    for old, new in zip(of, found, strict=True):
        assert naming.fits(old, new) == (old != "" and old.replace("\t", " ").isprintable())


@pytest.mark.parametrize(
    ("other", "name"), [("web", "work"), ("a b", "work"), ("../x", "work"), ("", "work"), ("a\nb", "a-b"), ("a", "a-2")]
)
def test_a_name_of_another_domain(other: str, name: str) -> None:
    assert not naming.fits(other, name)


@pytest.mark.parametrize(
    "text", ["qemu:///system", "qemu:///session", "qemu+unix:///system?socket=/run/x", "test:///default"]
)
def test_a_uri_of_this_machine(text: str) -> None:
    assert uri.checked(text) == text
    assert uri.checked("") == "qemu:///system"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("qemu+ssh://root@server/system", "may be on another machine, whose volumes cannot be read here"),
        ("qemu+ssh:///system", "may be on another machine, whose volumes cannot be read here"),
        ("qemu+tcp:///system", "may be on another machine, whose volumes cannot be read here"),
        ("qemu+ext:///system?command=/bin/x", "may be on another machine, whose volumes cannot be read here"),
        ("qemu://server/system", "may be on another machine, whose volumes cannot be read here"),
        ("qemu+unix://server/system", "may be on another machine, whose volumes cannot be read here"),
        ("xen:///system", "has no machines of qemu"),
        ("lxc:///", "has no machines of qemu"),
        ("system", "is not a URI of libvirt"),
        ("qemu:/system", "is not a URI of libvirt"),
        ("qemu:///system\n", "is not a URI of libvirt"),
    ],
)
def test_another_uri(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        uri.checked(text)
    assert error.value.message == f"{text} {message}"
    assert error.value.hint
