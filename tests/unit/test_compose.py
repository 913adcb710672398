"""Making a qubes.xml: it has everything that Qubes OS reads, and the input is checked."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import pytest

from qbtools.domains import compose, inventory, safexml
from qbtools.domains.compose import NewVolume
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Damaged, Refused, Truncated
from qbtools.streams import Reader

LINES = b"work\troot\t10737418240\nbank\tprivate\t2048\nwork\tprivate\t1024\t512\n"


def wanted(lines: bytes) -> tuple[compose.Wanted, list[str]]:
    warnings: list[str] = []
    return compose.read_wanted(Reader(io.BytesIO(lines)), warnings.append), warnings


def made(lines: bytes) -> bytes:
    return compose.compose(wanted(lines)[0])


def test_lines_of_a_domain_are_put_together() -> None:
    found, warnings = wanted(LINES)
    assert list(found) == ["work", "bank"]
    assert list(found["work"].values()) == [
        NewVolume("root", 10737418240, 10737418240),
        NewVolume("private", 1024, 512),
    ]
    assert not warnings


def test_a_volume_that_qubes_does_not_restore_gets_a_warning() -> None:
    _, warnings = wanted(b"work\tdata\t1\nwork\troot\t1\n")
    assert warnings == ["Qubes OS will not restore the volume data of work, only root and private"]


def test_the_same_lines_give_the_same_bytes() -> None:
    assert made(LINES) == made(LINES)


def test_it_reads_itself() -> None:
    entries = inventory.entries(Metadata(safexml.parse(made(LINES))))
    assert [entry.to_line() for entry in entries] == [
        "work\tStandaloneVM\troot\tvm1/root.img\t10737418240\n",
        "work\tStandaloneVM\tprivate\tvm1/private.img\t1024\n",
        "bank\tStandaloneVM\tprivate\tvm2/private.img\t2048\n",
    ]


def test_what_qubes_looks_for() -> None:
    """Reads the document like the restore of Qubes OS, and fails if that would fail."""
    data = made(LINES)
    assert data.startswith(b"<qubes>\n") and data.isascii()
    root = ElementTree.fromstring(data)
    labels = {}
    for label in root.find("./labels"):  # type: ignore[union-attr]
        labels[label.attrib["id"]] = labels[label.text or ""] = label.text
        assert label.attrib["color"].startswith("0x") and len(label.attrib["color"]) == 8
    assert [labels[f"label-{n}"] for n in range(1, 9)] == [
        *("red", "orange", "yellow", "green", "gray", "blue", "purple", "black")
    ]
    assert root.find("./properties") is not None
    restored = {}
    for domain in root.findall("./domains/domain"):
        properties = {one.attrib["name"]: one.text for one in domain.findall("./properties/property")}
        features = {one.attrib["name"]: one.text for one in domain.findall("./features/feature")}
        assert labels[properties.pop("label") or ""]
        if domain.attrib["class"] == "AdminVM":
            assert domain.attrib["id"] == "domain-0"
            assert features == {"backup-content": None}
            continue
        # The rest of them would be set on the new machine.
        name, qid = properties.pop("name"), properties.pop("qid")
        assert not properties
        assert domain.attrib == {"class": "StandaloneVM", "id": f"domain-{qid}"}
        assert features.pop("backup-content") == "1"
        volumes = {one.attrib["name"]: one.attrib for one in domain.findall("./volume-config/volume")}
        restored[name] = (features.pop("backup-path"), int(features.pop("backup-size") or ""), volumes)
        assert not features
    assert set(restored) == {"work", "bank"}
    path, size, volumes = restored["work"]
    assert path == "vm1/"
    assert size >= 10737418240 + 512
    pools = {one.attrib["name"] for one in root.findall("./pools/pool")}
    for name, volume in volumes.items():
        assert volume["pool"] in pools
        assert volume["vid"] == f"appvms/work/{name}"
        assert (volume["rw"], volume["save_on_stop"]) == ("True", "True")
        assert "snap_on_start" not in volume
    assert [volume["size"] for volume in volumes.values()] == ["10737418240", "1024"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b"", "has no volume"),
        (b"\n", "line 1 is not DOMAIN, VOLUME, SIZE"),
        (b"work\troot\n", "line 1 is not"),
        (b"work root 5\n", "line 1 is not"),
        (b"work\troot\t5\t5\t5\n", "line 1 is not"),
        (b"work\troot\t5\n\nbank\troot\t5\n", "line 2 is not"),
        (b"../x\troot\t5\n", "line 1: cannot save a domain as ../x"),
        (b"-rf\troot\t5\n", "line 1: cannot save a domain as -rf"),
        (b"a" * 32 + b"\troot\t5\n", "1 to 31 letters"),
        (b"dom0\troot\t5\n", "dom0: this name is reserved"),
        (b"Domain-0\troot\t5\n", "reserved"),
        (b"none\troot\t5\n", "reserved"),
        (b"default\troot\t5\n", "reserved"),
        (b"work-dm\troot\t5\n", "reserved"),
        (b"work\t../x\t5\n", "line 1: cannot save a volume as ../x"),
        (b"work\t-\t5\n", "cannot save a volume as -"),
        (b"work\troot.img\t5\n", "cannot save a volume as root.img"),
        (b"work\troot\t\n", "not a size in bytes"),
        (b"work\troot\t05\n", "not a size in bytes: 05"),
        (b"work\troot\t-5\n", "not a size in bytes: -5"),
        (b"work\troot\t5G\n", "not a size in bytes: 5G"),
        (b"work\troot\t9223372036854775808\n", "not a size in bytes"),
        (b"work\troot\t5\t6\n", "not a size in bytes: 5 6"),
        (b"work\troot\t5\nwork\troot\t6\n", "line 2: the volume root of work occurs twice"),
        (b"w\xc3\xb6rk\troot\t5\n", "line 1 has characters other than"),
        (b"work\troot\t5\r\n", "line 1 has characters other than"),
        (b"work\troot\0\t5\n", "line 1 has characters other than"),
        (b"x" * 5000 + b"\n", "line 1 is longer than 4096 bytes"),
    ],
)
def test_refused_lines(lines: bytes, message: str) -> None:
    with pytest.raises(Damaged) as caught:
        made(lines)
    assert message in caught.value.message


def test_a_line_without_newline_may_be_half_a_line() -> None:
    with pytest.raises(Truncated, match="line 2 has no newline"):
        made(b"work\troot\t5\nbank\troot\t50")


def test_more_than_qubes_reads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = b"".join(b"d%d\troot\t%d\n" % (number, number) for number in range(200))
    compose.compose(wanted(lines)[0])
    monkeypatch.setattr(compose, "MAX_METADATA", 6000)
    with pytest.raises(Refused, match="200 domains are too many"):
        compose.compose(wanted(lines)[0])


@pytest.mark.parametrize("size", [0, 1, 511, 65536, 1 << 30, 1 << 40, (1 << 63) - 1])
@pytest.mark.parametrize("data", [0, 1, 512 << 20, 1 << 62])
def test_the_bound_holds_for_the_worst_map(size: int, data: int) -> None:
    data = min(size, data)
    # The shortest extents with the narrowest holes; an entry of two numbers and their newlines; before and after.
    extents = min(1 << 20, -(-data // 512), (size - data) // 65536 + 1)
    worst = data + (extents + 1) * (len(str(size)) + len(str(data)) + 2) + 8
    bound = compose.sealed_bound([NewVolume("root", size, data)])
    assert bound >= worst * 1.001 + 4096
    assert compose.sealed_bound([NewVolume("root", size, data)] * 3) == 3 * bound


def test_a_domain_has_the_number_that_it_is_given() -> None:
    document = compose.compose(wanted(LINES)[0], {"work": 7, "bank": 3})
    entries = inventory.entries(Metadata(safexml.parse(document)))
    assert sorted({entry.path for entry in entries}) == ["vm3/", "vm7/"]


def test_what_no_reader_would_accept_is_not_written() -> None:
    """So many parts compress well enough."""
    lines = b"".join(b"d%d\troot\t4096\n" % number for number in range(30_000))
    with pytest.raises(Refused, match="30000 domains are too many: the metadata has at most 524288 parts"):
        compose.compose(wanted(lines)[0])
