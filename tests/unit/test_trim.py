"""The metadata of an archive, made from that of a host: what is kept, what is removed, what is added."""

from __future__ import annotations

from xml.etree.ElementTree import Element, canonicalize

import pytest
from machines import metadata, network, template, vm
from support import ROOT

from qbtools.domains import inventory, safexml, trim
from qbtools.domains.compose import NewVolume, sealed_bound
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Refused

HOST = (ROOT / "tests/vectors/metadata/host.xml").read_bytes()
TOLD = ("backup-content", "backup-path", "backup-size", "qbtools-unfinished")
WORK = NewVolume("private", 8589934592, 1000)


def host() -> Metadata:
    return Metadata(safexml.parse(HOST))


def names(found: trim.Trimmed) -> list[str]:
    return [domain.name for domain in Metadata(safexml.parse(found.document)).domains]


def plain(root: Element) -> str:
    """The document in a canonical form, without the parts about the backup itself."""
    for features in root.iter("features"):
        for feature in features.findall("feature"):
            if feature.get("name") in TOLD:
                features.remove(feature)
    return canonicalize(safexml.serialise(root).decode(), strip_text=False)


def test_the_output_of_qubes_is_read_unchanged() -> None:
    root = safexml.parse(HOST)
    again = safexml.parse(safexml.serialise(root))
    assert [(one.tag, one.attrib, one.text, one.tail) for one in root.iter()] == [
        (one.tag, one.attrib, one.text, one.tail) for one in again.iter()
    ]
    assert next(one.text for one in again.iter() if one.get("name") == "kernelopts") == 'a <b> "c" \r\td\ne'


def test_all_that_is_not_about_the_backup_stays_as_it_is() -> None:
    saved = {domain.name: [] for domain in host().domains if domain.name != "dom0"}
    found = trim.trimmed(host(), saved)

    def without_space(text: str) -> str:
        return "".join(line.strip() for line in text.splitlines())

    # Only the content of the feature parts counts: empty ones have more space now.
    assert without_space(plain(safexml.parse(found.document))) == without_space(plain(safexml.parse(HOST)))


def test_the_metadata_itself_is_not_changed() -> None:
    known = host()
    before = safexml.serialise(known.root)
    trim.trimmed(known, {"work": [WORK]})
    assert safexml.serialise(known.root) == before


def test_only_what_is_saved_or_named() -> None:
    # work names template, netvm, audiovm and, by a device, sys-usb; sys-vpn names sys-firewall and mgmt-dvm; the
    # system names default-dvm and sys-net. No domain names the other two.
    assert names(trim.trimmed(host(), {"work": [WORK]})) == [
        *("dom0", "fedora-41", "sys-net", "sys-firewall", "default-dvm", "work", "sys-vpn", "sys-audio", "sys-usb"),
        "mgmt-dvm",
    ]


NAMED = [
    ({"template": "t"}, ["dom0", "a", "t", "far"]),
    ({"netvm": "n"}, ["dom0", "a", "n"]),
    ({"default_dispvm": "n"}, ["dom0", "a", "n"]),
    ({"audiovm": "n"}, ["dom0", "a", "n"]),
    ({"guivm": "n"}, ["dom0", "a", "n"]),
    ({"management_dispvm": "n"}, ["dom0", "a", "n"]),
    ({"somedayvm": "n"}, ["dom0", "a", "n"]),
    ({"default_user": "n"}, ["dom0", "a"]),
    ({"netvm": "gone"}, ["dom0", "a"]),
    ({"netvm": ""}, ["dom0", "a"]),
]


@pytest.mark.parametrize(("properties", "expected"), NAMED)
def test_who_is_named(properties: dict[str, str], expected: list[str]) -> None:
    known = metadata(
        vm("a", **properties),
        template("t", netvm="far"),
        network("n"),
        network("far", netvm="t"),
        vm("other", netvm="a"),
    )
    assert names(trim.trimmed(known, {"a": []})) == expected


def test_the_system_names_some() -> None:
    properties = '<property name="default_netvm">n</property><property name="default_template">t</property>'
    known = metadata(vm("a"), template("t"), network("n"), vm("b"), properties=properties)
    assert names(trim.trimmed(known, {"a": []})) == ["dom0", "a", "t", "n"]


def test_what_is_told_of_a_saved_domain() -> None:
    found = trim.trimmed(host(), {"work": [WORK], "sys-audio": []})
    assert found.paths == {"work": "vm5/", "sys-audio": "vm7/"}
    read = Metadata(safexml.parse(found.document))
    assert [domain.name for domain in read.saved()] == ["work", "sys-audio"]
    assert read.by_name["work"].features["backup-size"] == str(sealed_bound([WORK]))
    assert "backup-path" not in read.by_name["fedora-41"].features
    assert read.by_name["fedora-41"].features["backup-content"] == ""
    assert read.by_name["mgmt-dvm"].features == {"backup-content": ""}
    assert [entry.archive_name for entry in inventory.entries(read)] == ["vm5/private.img", "vm7/empty"]


def test_the_size_of_a_volume_is_what_was_found() -> None:
    found = trim.trimmed(host(), {"work": [NewVolume("private", 512, 0), NewVolume("root", 7, 0)]})
    volumes = Metadata(safexml.parse(found.document)).by_name["work"].volumes()
    # root is not saved: its size is its template's.
    assert [(one.name, one.size) for one in volumes[:2]] == [("root", 21474836480), ("private", 512)]


def test_the_home_of_dom0() -> None:
    found = trim.trimmed(host(), {"dom0": [NewVolume("home", 5, 5)]}, "dom0-home/user")
    assert found.paths == {"dom0": "dom0-home/user"}
    (entry,) = inventory.entries(Metadata(safexml.parse(found.document)))
    assert entry.archive_name == "dom0-home/user"


def test_numbers_that_cannot_be_used() -> None:
    """Every saved domain gets its own path, whatever number the host gives."""
    bad = ("", "0", "-1", "x", "5", "5", "99999999999", "../5", "6")
    known = metadata(*(vm(f"a{i}", qid=qid) for i, qid in enumerate(bad)))
    found = trim.trimmed(known, {f"a{i}": [] for i in range(len(bad))})
    assert len(set(found.paths.values())) == len(bad)
    assert found.paths["a8"] == "vm6/"
    assert sum(1 for _ in Metadata(safexml.parse(found.document)).saved()) == len(bad)


def test_more_than_qubes_reads_is_refused() -> None:
    from random import Random

    noise = "".join(Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=1 << 20))
    with pytest.raises(Refused):
        trim.trimmed(metadata(vm("a", kernelopts=noise), vm("b", kernelopts=noise[::-1])), {"a": [], "b": []})


def test_the_numbers_of_a_series() -> None:
    """They are used as they are, also where a domain has another qid, or one has this qid."""
    saved = {"work": [WORK], "sys-audio": [], "dom0": [NewVolume("home", 5, 5)]}
    found = trim.trimmed(host(), saved, "dom0-home/user", {"sys-audio": 3, "work": 7, "gone": 1})
    assert found.paths == {"work": "vm7/", "sys-audio": "vm3/", "dom0": "dom0-home/user"}
    entries = inventory.entries(Metadata(safexml.parse(found.document)))
    assert {"vm7/private.img", "dom0-home/user"} < {entry.archive_name for entry in entries}
