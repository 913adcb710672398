"""The manifest and its records."""

from __future__ import annotations

import pytest

from qbtools.errors import Damaged
from qbtools.formats import manifest
from qbtools.formats.manifest import FileRecord

ID = "20261124T060000-0123456789abcdef"
A, B, C = "a" * 64, "b" * 64, "0123456789abcdef" * 4
RECORDS = [FileRecord("qubes.xml", 1, 321, A), FileRecord("vm1/private.img", 3, 209715300, B)]
TEXT = f"""\
qb-manifest 1
backup-id {ID}
file 1 321 {A} qubes.xml
file 3 209715300 {B} vm1/private.img
end 2
"""


def test_what_is_written() -> None:
    assert manifest.serialise(ID, RECORDS) == TEXT.encode()
    assert manifest.serialise(ID, []) == f"qb-manifest 1\nbackup-id {ID}\nend 0\n".encode()


def test_what_is_read() -> None:
    assert manifest.parse(TEXT.encode()) == (ID, RECORDS)
    assert manifest.parse(manifest.serialise(ID, [])) == (ID, [])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("qb-manifest 1", "qb-manifest 2"),
        ("qb-manifest 1", "qb-manifest 3"),
        ("qb-manifest 1", "qb-manifest 1 "),
        ("qb-manifest 1\n", ""),
        ("qb-manifest 1\n", "\nqb-manifest 1\n"),
        ("backup-id", "backup-iD"),
        (f"backup-id {ID}\n", ""),
        (f"backup-id {ID}\n", "backup-id \n"),
        (f"backup-id {ID}\n", f"backup-id  {ID}\n"),
        (f"backup-id {ID}\n", f"backup-id {ID}!\n"),
        (f"backup-id {ID}\n", f"backup-id {ID}\nbackup-id {ID}\n"),
        ("end 2\n", ""),
        ("end 2\n", "end 2"),
        ("end 2\n", "end 2\n\n"),
        ("end 2\n", "end 2\nend 2\n"),
        ("end 2\n", "end 2\nx"),
        ("end 2\n", "end 1\n"),
        ("end 2\n", "end 3\n"),
        ("end 2\n", "end 02\n"),
        ("end 2\n", "end +2\n"),
        ("end 2\n", "end 2\r\n"),
        ("end 2\n", "end  2\n"),
        (f"file 1 321 {A} qubes.xml\n", ""),
        (f"file 1 321 {A} qubes.xml\n", f"file 1 321 {A} qubes.xml\n" * 2),
        ("file 1 321", "file 0 321"),
        ("file 1 321", "file 01 321"),
        ("file 1 321", "file 10000001 321"),
        ("file 1 321", "file -1 321"),
        ("file 1 321", "file 1 0321"),
        ("file 1 321", "file 1 -321"),
        ("file 1 321", "file 1 9223372036854775808"),
        ("file 1 321", "file 1  321"),
        ("file 1 321", "file 1\t321"),
        ("file 1 321", "File 1 321"),
        ("file 1 321", "link 1 321"),
        ("file 1 321", " file 1 321"),
        ("file 1 321", "file ١ 321"),
        (A, A[1:]),
        (A, A + "a"),
        (A, A.upper()),
        (A, "g" * 64),
        ("vm1/private.img", "../private.img"),
        ("vm1/private.img", "vm1/private img"),
        ("vm1/private.img", "vm1/private.img\r"),
        ("vm1/private.img", "qb-manifest"),
        ("vm1/private.img", "backup-header"),
        ("vm1/private.img", "qubes.xml"),
        ("vm1/private.img", ""),
        ("qubes.xml", "vm1/a\x85"),
        ("qubes.xml", "é"),
    ],
)
def test_what_is_malformed(old: str, new: str) -> None:
    changed = TEXT.replace(old, new, 1)
    assert changed != TEXT
    with pytest.raises(Damaged):
        manifest.parse(changed.encode())


def test_not_even_ascii() -> None:
    with pytest.raises(Damaged, match="not ASCII"):
        manifest.parse(b"\xff" + TEXT.encode())
    with pytest.raises(Damaged):
        manifest.parse(b"")


def test_too_long() -> None:
    with pytest.raises(Damaged, match="more than"):
        manifest.parse(bytes(manifest.MAX_MANIFEST + 1))


@pytest.mark.parametrize("names", [("vm1/a", "vm1/a"), ("vm1/a", "qubes.xml"), ("vm1/a", "vm2/a", "vm1/b")])
def test_files_out_of_order_are_neither_written_nor_read(names: tuple[str, ...]) -> None:
    records = [FileRecord(name, 1, 1, A) for name in names]
    with pytest.raises(Damaged, match=f"the manifest lists {names[-1]}"):
        manifest.serialise(ID, records)
    lines = "".join(f"file 1 1 {A} {name}\n" for name in names)
    with pytest.raises(Damaged, match=f"the manifest lists {names[-1]}"):
        manifest.parse(f"qb-manifest 1\nbackup-id {ID}\n{lines}end {len(names)}\n".encode())


def test_the_largest_numbers() -> None:
    record = FileRecord("d" * 138 + "/" + "b" * 88, 10_000_000, (1 << 63) - 1, C)
    assert manifest.parse(manifest.serialise(ID, [record])) == (ID, [record])


def test_records() -> None:
    line = manifest.to_line(ID, RECORDS[1])
    assert line == f"{ID} 3 209715300 {B} vm1/private.img\n"
    assert manifest.from_line(line.encode()) == (ID, RECORDS[1])


def test_the_longest_record_is_within_the_bound() -> None:
    record = FileRecord("d" * 138 + "/" + "b" * 88, 10_000_000, (1 << 63) - 1, C)
    longest_id = "x" * manifest.MAX_SIZE
    line = manifest.to_line(longest_id, record).encode()
    assert len(line) <= manifest.MAX_LINE
    assert manifest.from_line(line) == (longest_id, record)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\n",
        f"{ID} 1 2 {A} vm1/a",
        f"{ID} 1 2 {A} vm1/a\r\n",
        f"{ID} 1 2 {A} vm1/a \n",
        f"{ID} 1 2 {A} vm1/a\n\n",
        f" {ID} 1 2 {A} vm1/a\n",
        f"{ID}  1 2 {A} vm1/a\n",
        f"1 2 {A} vm1/a\n",
        f"{ID} 1 {A} vm1/a\n",
        f"{ID} 0 2 {A} vm1/a\n",
        f"{ID} 1 2 {A} ../a\n",
        f"{ID}! 1 2 {A} vm1/a\n",
        f"file 1 2 {A[:-1]} vm1/a\n",
        "é\n",
    ],
)
def test_what_is_no_record(line: str) -> None:
    assert manifest.from_line(line.encode()) is None


def test_comparing_what_is_the_same() -> None:
    assert manifest.compare(RECORDS, list(RECORDS), {}) == []
    assert manifest.compare([], [], {}) == []


X, Y, Z = (FileRecord(f"vm1/{letter}", 1, 1, A) for letter in "xyz")


@pytest.mark.parametrize(
    ("came", "message"),
    [
        ([X, Y], "vm1/z is missing"),
        ([Y, Z], "vm1/x is missing"),
        ([X, Z], "vm1/y is missing"),
        ([], "vm1/x is missing"),
        ([X, Z, Y], "vm1/z comes where vm1/y is due"),
        ([X, FileRecord("vm1/more", 1, 1, A), Y, Z], "vm1/more is not listed in the manifest"),
        ([X, Y, Z, FileRecord("vm1/more", 1, 1, A)], "vm1/more is not listed in the manifest"),
        ([X, FileRecord("vm1/y", 2, 1, A), Z], "vm1/y is not the file that the manifest lists"),
        ([X, FileRecord("vm1/y", 1, 2, A), Z], "vm1/y is not the file that the manifest lists"),
        ([X, FileRecord("vm1/y", 1, 1, B), Z], "vm1/y is not the file that the manifest lists"),
    ],
)
def test_comparing_what_differs(came: list[FileRecord], message: str) -> None:
    with pytest.raises(Damaged, match=message):
        manifest.compare([X, Y, Z], came, {})


# --- files that failed when they were saved ---

LOST = manifest.failed_file("vm1/private.img")
LOST_TEXT = f"""\
qb-manifest 2
backup-id {ID}
file 1 321 {A} qubes.xml
failed vm1/private.img
end 2
"""


def test_a_file_that_failed() -> None:
    records = [RECORDS[0], LOST]
    assert LOST.failed and not RECORDS[0].failed
    assert manifest.serialise(ID, records) == LOST_TEXT.encode()
    assert manifest.parse(LOST_TEXT.encode()) == (ID, records)
    line = manifest.to_line(ID, LOST)
    assert line == f"{ID} failed vm1/private.img\n"
    assert manifest.from_line(line.encode()) == (ID, LOST)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("qb-manifest 2", "qb-manifest 1"),
        ("qb-manifest 2", "qb-manifest 3"),
        ("failed vm1/private.img", f"file 1 1 {A} vm1/private.img"),
        ("failed vm1/private.img", "failed  vm1/private.img"),
        ("failed vm1/private.img", "failed qubes.xml"),
        ("failed vm1/private.img", "failed ../x"),
        ("failed vm1/private.img", "failed "),
        ("failed vm1/private.img", "failed"),
        ("failed vm1/private.img", "file failed vm1/private.img"),
        ("failed vm1/private.img", f"1 1 {A} vm1/private.img"),
        ("failed vm1/private.img", f"failed 1 1 {A} vm1/private.img"),
        ("end 2", "end 1"),
    ],
)
def test_what_is_malformed_of_files_that_failed(old: str, new: str) -> None:
    changed = LOST_TEXT.replace(old, new, 1)
    assert changed != LOST_TEXT
    with pytest.raises(Damaged):
        manifest.parse(changed.encode())


def test_comparing_files_that_failed() -> None:
    """A file without its last chunk is only valid if the manifest says that it failed, with or without other chunks."""
    lost = manifest.failed_file("vm1/y")
    broken = {"vm1/y": Damaged("vm1/y is incomplete")}
    assert manifest.compare([X, lost, Z], [X, Z], {}) == ["vm1/y"]
    assert manifest.compare([X, lost, Z], [X, Z], broken) == ["vm1/y"]
    with pytest.raises(Damaged, match="vm1/y is incomplete"):
        manifest.compare([X, Y, Z], [X, Z], broken)
    with pytest.raises(Damaged, match="vm1/y is incomplete"):
        manifest.compare([X, Z], [X, Z], broken)
    with pytest.raises(Damaged, match="vm1/y came, but the manifest says that it failed"):
        manifest.compare([X, lost, Z], [X, Y, Z], {})
    with pytest.raises(Damaged, match="vm1/x is missing"):
        manifest.compare([X, lost, Z], [Z], broken)
