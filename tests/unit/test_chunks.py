"""Names, order and passphrases of chunks."""

from __future__ import annotations

import pytest

from qbtools.errors import Damaged, Refused
from qbtools.formats import chunks, container
from qbtools.formats.chunks import DEFAULT_CHUNK_SIZE, MANIFEST, METADATA, FileOrder, Order


@pytest.mark.parametrize(
    "name",
    [
        "qubes.xml",
        "vm1/private.img",
        "vm1/empty",
        "dom0-home/user",
        "a",
        "_.@+-",
        "...",
        "a/..000",
        "x/backup-header",
        "d" * 138 + "/" + "b" * 88,
        "a/b/c/d",
    ],
)
def test_good_names(name: str) -> None:
    assert chunks.name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/",
        "/a",
        "a/",
        "a//b",
        "./a",
        "a/.",
        "a/..",
        "../a",
        "a/../b",
        "-a",
        "a/-b",
        "a b",
        "a\n",
        "a\nb",
        "a!b",
        "a:b",
        "a\\b",
        "é",
        "a\0",
        "١",  # a digit, but not an ASCII one
        "d" * 139 + "/b",
        "b" * 89,
        "d/" + "b" * 89,
        "backup-header",
        "qb-manifest",
    ],
)
def test_bad_names(name: str) -> None:
    assert chunks.name_problem(name)


def test_a_final_dot_only_where_it_is_allowed() -> None:
    assert chunks.name_problem("vm-templates/debian/.", final_dot=True) is None
    for name in (".", "a/./b", "a/..", "./a"):
        assert chunks.name_problem(name, final_dot=True)


@pytest.mark.parametrize(("number", "member"), [(0, "n.000.enc"), (999, "n.999.enc"), (1000, "n.1000.enc")])
def test_member_names(number: int, member: str) -> None:
    assert chunks.member_name("n", number) == member
    assert chunks.parse_member(member) == ("n", number)


def test_the_last_chunk_number_fits_ustar() -> None:
    name = "d" * chunks.MAX_DIRECTORY + "/" + "b" * chunks.MAX_BASE
    member = chunks.member_name(name, chunks.MAX_NUMBER)
    assert len(member.rpartition("/")[2]) == 100
    assert chunks.parse_member(member) == (name, chunks.MAX_NUMBER)
    with pytest.raises(Refused):
        chunks.member_name(name, chunks.MAX_NUMBER + 1)


def test_the_manifest_is_a_member() -> None:
    assert chunks.parse_member("qb-manifest.000.enc") == (MANIFEST, 0)


@pytest.mark.parametrize(
    "member",
    [
        "n.000",
        "n.00.enc",
        "n.0000.enc",
        "n.0999.enc",
        "n.10000000.enc",
        "n.-01.enc",
        "n.000.enc\n",
        "n.٠٠٠.enc",
        ".000.enc",
        "backup-header.000.enc",
        "a/.000.enc/../b",
        "../n.000.enc",
        "/n.000.enc",
        "./n.000.enc",
        "n.000.encx",
        "n.000.hmac",
        "",
    ],
)
def test_not_a_chunk(member: str) -> None:
    with pytest.raises(Damaged):
        chunks.parse_member(member)


@pytest.mark.parametrize("member", ["backup-header", "backup-header.hmac"])
def test_a_second_header(member: str) -> None:
    with pytest.raises(Damaged, match=f"a second {member}"):
        chunks.parse_member(member)


def test_passphrases() -> None:
    assert chunks.header_passphrase(b"s\xff") == b"backup-header!s\xff"
    assert chunks.chunk_passphrase(b"s!\xff", "ID", "vm1/a.img", 7) == b"ID!vm1/a.img.007!s!\xff"
    assert chunks.chunk_passphrase(b"s", "ID", "vm1/a.img", 1000) == b"ID!vm1/a.img.1000!s"


def test_bounds() -> None:
    assert chunks.OVERHEAD == container.OVERHEAD
    assert chunks.member_bound("vm1/a.000.enc", 1000) == 1128
    assert chunks.member_bound("vm1/a.000.enc", None) == DEFAULT_CHUNK_SIZE + 128
    assert chunks.member_bound("vm1/a.000.enc", None, 5000) == 5128
    assert chunks.member_bound("qubes.xml.000.enc", 1000) == 1 << 20
    assert chunks.member_bound("qubes.xml.000.enc", DEFAULT_CHUNK_SIZE) == 1 << 20
    assert chunks.member_bound("qubes.xml.000.enc", None) == DEFAULT_CHUNK_SIZE + 128
    assert chunks.member_bound("qubes.xml.001.enc", 1000) == 1128
    assert chunks.member_bound("qb-manifest.000.enc", 1000) == chunks.MAX_MANIFEST + 128


# The order of files.


def problems(*names: str, legacy: bool = False) -> list[str]:
    order = FileOrder(legacy)
    return [f"{name}: {problem}" for name in names if (problem := order.problem(name))]


def test_files_in_order() -> None:
    assert not problems(METADATA, "vm1/a", "vm1/sub/b", "vm1/c", "dom0-home/user", "vm2/a", "top")
    assert not problems("vm1/a")
    assert not problems()


def test_a_file_twice() -> None:
    assert problems("vm1/a", "vm1/a") == ["vm1/a: occurs twice"]
    assert problems(METADATA, METADATA) == ["qubes.xml: occurs twice"]


def test_metadata_is_first() -> None:
    assert problems("vm1/a", METADATA) == ["qubes.xml: is not the first file"]


def test_files_of_a_domain_stand_together() -> None:
    assert problems("vm1/a", "vm2/a", "vm1/b") == ["vm1/b: comes back to the directory vm1 after another one"]
    assert problems("vm1/a", "top", "vm1/b")
    assert problems("vm1/x/a", "vm2/a", "vm1/y/a")
    assert not problems("vm1/a", "vm11/a", "vm111/a")


def test_version_3_has_domains_further_down() -> None:
    assert not problems("appvms/a/x", "vm-templates/t/.", "appvms/b/x", legacy=True)
    assert problems("appvms/a/x", "vm-templates/t/.", "appvms/a/y", legacy=True)


def test_so_many_files_and_no_more() -> None:
    order = FileOrder()
    for number in range(chunks.MAX_FILES):
        assert order.problem(f"vm{number}/a") is None
    assert order.count == chunks.MAX_FILES
    with pytest.raises(Refused):
        order.problem("one/more")


# The order of chunks.


class Case:
    """An Order, and what it warned of."""

    def __init__(self, chunk_size: int | None = 100, manifest: bool = True, legacy: bool = False) -> None:
        self.warnings: list[str] = []
        self.order = Order(chunk_size, manifest, self.warnings.append, legacy)

    def take(self, *given: tuple[str, int, int]) -> None:
        for name, number, size in given:
            self.order.chunk(name, number, size)


def test_a_whole_archive() -> None:
    case = Case()
    case.take((METADATA, 0, 5), ("vm1/a", 0, 100), ("vm1/a", 1, 100), ("vm1/a", 2, 0), ("vm1/b", 0, 0))
    case.take((MANIFEST, 0, 5000))
    case.order.finish()
    assert not case.warnings


def test_metadata_is_optional_with_a_manifest() -> None:
    case = Case()
    case.take(("vm1/a", 0, 5), (MANIFEST, 0, 9))
    case.order.finish()


def test_metadata_of_a_chunk_or_more_is_complete() -> None:
    for size in (100, 4000):
        case = Case()
        case.take((METADATA, 0, size))
        assert case.order.ended
        case.take(("vm1/a", 0, 5))


def test_ended_is_known_from_the_size() -> None:
    case = Case()
    assert not case.order.ended
    case.take(("vm1/a", 0, 100))
    assert not case.order.ended
    case.take(("vm1/a", 1, 99))
    assert case.order.ended
    case = Case(chunk_size=None)
    case.take((METADATA, 0, 1), ("vm1/a", 0, 5))
    assert not case.order.ended


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([("vm1/a", 1, 5)], "vm1/a.001.enc comes where vm1/a.000.enc is due"),
        ([("vm1/a", 0, 100), ("vm1/a", 2, 5)], "vm1/a.002.enc comes where vm1/a.001.enc is due"),
        ([("vm1/a", 0, 100), ("vm1/a", 0, 100)], "vm1/a.000.enc comes where vm1/a.001.enc is due"),
        ([("vm1/a", 0, 99), ("vm1/a", 1, 5)], "vm1/a.001.enc comes after the last chunk of its file"),
        ([("vm1/a", 0, 5), ("vm1/a", 0, 5)], "vm1/a.000.enc comes after the last chunk of its file"),
        ([("vm1/a", 0, 101)], "vm1/a.000.enc is longer than a chunk of 100 bytes"),
        ([("vm1/a", 0, -1)], "vm1/a.000.enc is too short for a sealed chunk"),
        ([("vm1/a", 0, 5), ("vm1/b", 0, 5), ("vm1/a", 0, 5)], "vm1/a.000.enc: the file occurs twice"),
        ([("vm1/a", 0, 5), ("vm2/b", 0, 5), ("vm1/c", 0, 5)], "vm1/c.000.enc: the file comes back to the directory"),
        ([("vm1/a", 0, 5), (METADATA, 0, 5)], "qubes.xml.000.enc: the file is not the first"),
        ([(METADATA, 1, 5)], "qubes.xml.001.enc comes where qubes.xml.000.enc is due"),
        ([(METADATA, 0, 100), (METADATA, 1, 5)], "qubes.xml.001.enc comes after the last chunk of its file"),
        ([(MANIFEST, 1, 5)], "qb-manifest.001.enc comes where qb-manifest.000.enc is due"),
        ([(MANIFEST, 0, 5), ("vm1/a", 0, 5)], "vm1/a.000.enc comes after the manifest"),
        ([(MANIFEST, 0, 5), (MANIFEST, 0, 5)], "qb-manifest.000.enc comes after the manifest"),
        ([(MANIFEST, 0, 100), (MANIFEST, 1, 5)], "qb-manifest.001.enc comes after the manifest"),
    ],
)
def test_out_of_order(given: list[tuple[str, int, int]], message: str) -> None:
    case = Case()
    case.take(*given[:-1])
    with pytest.raises(Damaged) as caught:
        case.take(given[-1])
    assert caught.value.message.startswith(message)
    assert not case.warnings


@pytest.mark.parametrize("follower", [("vm1/b", 0, 5), (MANIFEST, 0, 5)])
def test_a_file_without_its_last_chunk(follower: tuple[str, int, int]) -> None:
    """If the manifest says so, it failed when it was saved. Without a manifest the archive is damaged."""
    case = Case()
    case.take(("vm1/a", 0, 100), follower)
    assert [error.message for error in case.order.broken.values()] == ["vm1/a is incomplete: its chunk 001 is missing"]
    assert list(case.order.broken) == ["vm1/a"]
    case = Case(manifest=False)
    case.take((METADATA, 0, 5), ("vm1/a", 0, 100))
    with pytest.raises(Damaged, match="vm1/a is incomplete: its chunk 001 is missing"):
        case.take(follower)


def test_the_end_too_early() -> None:
    case = Case()
    case.take(("vm1/a", 0, 100))
    with pytest.raises(Damaged, match="vm1/a is incomplete: its chunk 001 is missing"):
        case.order.finish()
    case = Case()
    case.take(("vm1/a", 0, 5))
    with pytest.raises(Damaged, match="the manifest is missing"):
        case.order.finish()
    with pytest.raises(Damaged, match="the manifest is missing"):
        Case().order.finish()


def test_qubes_archives_have_neither_manifest_nor_chunk_size() -> None:
    case = Case(None, manifest=False)
    full = DEFAULT_CHUNK_SIZE
    case.take((METADATA, 0, 5), ("vm1/a", 0, full), ("vm1/a", 1, full), ("vm1/a", 2, 0), ("vm1/b", 0, 10))
    case.order.finish()
    assert not case.warnings


@pytest.mark.parametrize("follower", [("vm1/b", 0, 5), None])
def test_a_full_last_chunk_without_chunk_size_gets_a_warning(follower: tuple[str, int, int] | None) -> None:
    case = Case(None, manifest=False)
    case.take((METADATA, 0, 5), ("vm1/a", 0, DEFAULT_CHUNK_SIZE))
    assert not case.warnings
    if follower:
        case.take(follower)
    case.order.finish()
    assert len(case.warnings) == 1
    assert case.warnings[0].startswith("vm1/a ends with a full chunk")


def test_metadata_is_required_without_a_manifest() -> None:
    case = Case(manifest=False)
    with pytest.raises(Damaged, match="vm1/a.000.enc comes where qubes.xml.000.enc is due"):
        case.take(("vm1/a", 0, 5))
    with pytest.raises(Damaged, match="qubes.xml is missing"):
        Case(manifest=False).order.finish()


def test_gaps_are_seen_without_chunk_size() -> None:
    case = Case(None, manifest=False)
    case.take((METADATA, 0, 5), ("vm1/a", 0, DEFAULT_CHUNK_SIZE))
    with pytest.raises(Damaged, match="vm1/a.002.enc comes where vm1/a.001.enc is due"):
        case.take(("vm1/a", 2, 5))


def test_version_3_members_have_no_suffix() -> None:
    case = Case(None, manifest=False, legacy=True)
    case.take((METADATA, 0, 5))
    with pytest.raises(Damaged, match=r"^appvms/a/x\.001 comes where appvms/a/x\.000 is due"):
        case.take(("appvms/a/x", 1, 5))
