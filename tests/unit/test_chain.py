"""Chains of archives: their order, everything that makes a set of archives no chain, and what restores each file."""

from __future__ import annotations

import random

import pytest

from qbtools.errors import Damaged, UsageError
from qbtools.formats import chain, header, manifest
from qbtools.formats.chain import WHOLE, Link, Part
from qbtools.formats.header import Base
from qbtools.formats.manifest import FileRecord


def digest(number: int) -> str:
    return f"{number:064x}"


def name_of(number: int) -> str:
    return f"202611{number % 30 + 1:02d}T060000-{number:016x}"


def record(number: int, name: str) -> FileRecord:
    return FileRecord(name, 1, number, digest(number))


def link(number: int, base: int | None, files: str = "a") -> Link:
    """An archive with a file for each letter."""
    named = None if base is None else Base(name_of(base), digest(base))
    records = {f"vm1/{one}": record(number, f"vm1/{one}") for one in files}
    return Link(f"{number}.qb", name_of(number), named, digest(number), records)


def numbers(links: list[Link]) -> list[int]:
    return [int(one.manifest, 16) for one in links]


def test_a_full_backup_is_a_chain() -> None:
    assert chain.order([link(1, None)]) == [link(1, None)]


def test_any_order_gives_the_same_chain() -> None:
    links = [link(number, number - 1 if number else None) for number in range(6)]
    for seed in range(50):
        mixed = random.Random(seed).sample(links, 6)
        assert chain.order(mixed) == links
        assert chain.order(mixed, name_of(3)) == links[:4]


@pytest.mark.parametrize(
    ("links", "message"),
    [
        ([link(1, None), link(3, 2)], f"the backup {name_of(2)} is missing: it is the base of 3.qb"),
        ([link(2, 1)], f"the backup {name_of(1)} is missing"),
        ([link(1, None), link(2, 1), link(2, 1)], f"2.qb and 2.qb are both the backup {name_of(2)}"),
        ([link(1, None), link(7, None)], f"1.qb ({name_of(1)}) and 7.qb ({name_of(7)}) are both full"),
        ([link(1, None), link(2, 1), link(7, None)], "are both full backups: a chain has one"),
        ([link(1, None), link(8, 7)], f"the backup {name_of(7)} is missing"),
        ([link(1, None), link(2, 3), link(3, 2)], "is its own base"),
        ([link(2, 3), link(3, 2)], "is its own base"),
    ],
)
def test_no_chain(links: list[Link], message: str) -> None:
    with pytest.raises(Damaged) as caught:
        chain.order(links, name_of(1))
    assert message in caught.value.message
    with pytest.raises(Damaged):
        chain.order(links[::-1])


def test_files_in_another_order_than_in_the_base() -> None:
    assert numbers(chain.order([link(1, None, "abc"), link(2, 1, "bxcy")])) == [1, 2]
    with pytest.raises(Damaged, match=r"2\.qb has vm1/c where 1\.qb has vm1/b: their order differs"):
        chain.order([link(1, None, "abc"), link(2, 1, "acb")])


def test_another_archive_of_the_same_backup_is_no_base() -> None:
    rewritten = link(1, None)._replace(manifest=digest(99))
    with pytest.raises(Damaged, match=r"1\.qb is not the base of 2\.qb, but another archive of the backup"):
        chain.order([rewritten, link(2, 1)])


def test_several_last_states() -> None:
    links = [link(1, None), link(2, 1), link(3, 1), link(4, 3)]
    with pytest.raises(UsageError) as caught:
        chain.order(links)
    assert f"{name_of(2)} (2026-11-03 06:00:00 UTC), {name_of(4)} (2026-11-05 06:00:00 UTC)" in caught.value.message
    assert numbers(chain.order(links, name_of(2))) == [1, 2]
    assert numbers(chain.order(links, name_of(4))) == [1, 3, 4]
    assert numbers(chain.order(links, name_of(3))) == [1, 3]
    with pytest.raises(UsageError, match="none of the archives has the backup ID x"):
        chain.order(links, "x")


def test_thousands_of_random_sets() -> None:
    """What is accepted is a path of the real tree; whatever is done to a tree is noticed."""
    for seed in range(4000):
        chance = random.Random(seed)
        count = chance.randint(1, 8)
        tree = [link(number, chance.randrange(number) if number else None) for number in range(count)]
        chosen = chance.randrange(count)
        path = [chosen]
        while (base := tree[path[-1]].base) is not None:
            path.append(int(base.manifest, 16))
        links = chance.sample(tree, count)
        assert numbers(chain.order(links, name_of(chosen))) == path[::-1]
        damaged = list(links)
        at = chance.randrange(count)
        how = chance.choice(["drop", "double", "rewrite", "foreign", "other base"])
        needed = any(one.base and one.base.backup_id == links[at].backup_id for one in links)
        if how == "drop":
            del damaged[at]
        elif how == "double":
            damaged.append(links[at])
        elif how == "rewrite":
            damaged[at] = links[at]._replace(manifest=digest(1000))
        elif how == "foreign":
            damaged.append(link(77, chance.choice([None, 76])))
        else:
            damaged[at] = links[at]._replace(base=Base(name_of(chance.randrange(count)), digest(1000)))
        if how in ("drop", "rewrite") and not needed:
            continue  # the rest is a shorter chain: only a receipt tells
        with pytest.raises(Damaged):
            chain.order(damaged)


def test_what_makes_a_file() -> None:
    links = [link(1, None, "ab"), link(2, 1, "abc"), link(3, 2, "acd"), link(4, 3, "abcd")]

    def base(number: int, file: str) -> str:
        return f"{name_of(number)}:{manifest.line_digest(record(number, f'vm1/{file}'))}"

    assert chain.parts(links, "vm1/a") == [
        Part(0, WHOLE),
        Part(1, base(1, "a")),
        Part(2, base(2, "a")),
        Part(3, base(3, "a")),
    ]
    assert chain.parts(links, "vm1/b") == [Part(3, WHOLE)]
    assert chain.parts(links, "vm1/c") == [Part(1, WHOLE), Part(2, base(2, "c")), Part(3, base(3, "c"))]
    assert chain.parts(links[:3], "vm1/d") == [Part(2, WHOLE)]


def test_what_can_be_a_link() -> None:
    good = header.new_header(name_of(1), "gzip", 100)
    found = chain.link("a.qb", good, digest(1), [record(1, "vm1/a"), manifest.failed_file("vm1/b")])
    assert found == Link("a.qb", name_of(1), None, digest(1), {"vm1/a": record(1, "vm1/a")})
    old = header.parse(b"version=3\nencrypted=1\ncompressed=no\nhmac-algorithm=sha1\ncrypto-algorithm=aes-256-cbc\n")
    without = header.new_header(name_of(1), "gzip", 100, manifest=False)
    for bad, sealed in ((without, digest(1)), (old, digest(1)), (good, "")):
        with pytest.raises(Damaged, match=r"a\.qb cannot be part of a chain"):
            chain.link("a.qb", bad, sealed, [])
