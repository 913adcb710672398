"""qubes.xml: what is written is read again, and no mutation gets an unsafe name through."""

from __future__ import annotations

import contextlib
import io
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from qbtools.domains import arrivals, compose, inventory, safexml
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Damaged
from qbtools.streams import Reader

RESERVED = {"dom0", "Domain-0", "none", "default"}
domains = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,30}", fullmatch=True).filter(
    lambda name: name not in RESERVED and not name.endswith("-dm")
)
volumes = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,83}", fullmatch=True)
sizes = st.integers(0, (1 << 63) - 1)
machines = st.dictionaries(domains, st.dictionaries(volumes, sizes, min_size=1, max_size=4), min_size=1, max_size=6)

SAFE = re.compile(
    r"[A-Za-z][A-Za-z0-9_-]{0,30}\t[A-Za-z0-9]+\t[A-Za-z0-9_-]+\t"
    r"(vm[0-9]+/[A-Za-z0-9_][A-Za-z0-9_-]*(\.img)?|dom0-home/[A-Za-z0-9_@+][A-Za-z0-9_.@+-]*)\t([0-9]+|-)\n"
)


def lines(wanted: dict[str, dict[str, int]]) -> list[str]:
    return [f"{name}\t{volume}\t{size}\n" for name, all_ in wanted.items() for volume, size in all_.items()]


def make(text: list[str]) -> bytes:
    reader = Reader(io.BytesIO("".join(text).encode()))
    return compose.compose(compose.read_wanted(reader, lambda _: None))


def entries(data: bytes) -> list[inventory.Entry]:
    return inventory.entries(Metadata(safexml.parse(data)))


@settings(max_examples=100, deadline=None)
@given(machines, st.randoms(use_true_random=False))
def test_create_then_list(wanted: dict[str, dict[str, int]], random: object) -> None:
    text = lines(wanted)
    found = entries(make(text))
    assert [f"{one.domain}\t{one.volume}\t{one.size}\n" for one in found] == text
    assert len({one.archive_name for one in found}) == len(text)
    random.shuffle(text)  # type: ignore[attr-defined]
    assert {one[:3] + (one.size,) for one in entries(make(text))} == {one[:3] + (one.size,) for one in found}
    assert all(SAFE.fullmatch(one.to_line()) for one in found)


@settings(max_examples=100, deadline=None)
@given(machines, st.data())
def test_check_takes_exactly_what_was_saved(wanted: dict[str, dict[str, int]], data: st.DataObject) -> None:
    found = entries(make(lines(wanted)))
    listed = "".join(one.to_line() for one in found)
    came = [f"came\t{one.archive_name}\t{one.size}\n" for one in data.draw(st.permutations(found))]
    count = arrivals.check(Reader(io.BytesIO((listed + "".join(came) + "end\n").encode())), lambda _: None)
    assert count == len(found)
    came.pop()
    try:
        arrivals.check(Reader(io.BytesIO((listed + "".join(came) + "end\n").encode())), lambda _: None)
    except Damaged:
        return
    raise AssertionError("a file that did not come went unnoticed")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_mutation_is_refused_or_harmless(data: st.DataObject) -> None:
    original = bytearray(make(["work\troot\t5\n", "work\tprivate\t6\n", "bank\troot\t7\n"]))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(original) - 1))
        original[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    with contextlib.suppress(Damaged):
        for one in entries(bytes(original)):
            assert SAFE.fullmatch(one.to_line())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet='<>/ q"=&;![]-?abc', max_size=60).map(str.encode))
def test_anything_ends_in_an_error_of_ours(data: bytes) -> None:
    with contextlib.suppress(Damaged):
        entries(data)
