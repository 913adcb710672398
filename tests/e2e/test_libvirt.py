"""Machines of libvirt are saved: a real libvirtd has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from devices import file_system
from libvirtd import Libvirt, disk
from support import bash, need, run

from qbtools.domains import safexml
from qbtools.domains.qubesxml import Metadata

MiB = 1 << 20
ODD = ["a b", "ä", "-x", "1vm", "a:b", "t&#9;b", "x" * 200, "none", "&lt;b>&amp;'\"", "a\\b $(c) `d`;"]
CREATE = "qb-backup create -q --logn 10 --passphrase-file passphrase"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "passphrase").write_text("secret\n")
    (tmp_path / "passphrase").chmod(0o600)
    return tmp_path


def inventory(host: Libvirt) -> Metadata:
    done = run("qb-host-libvirt", host.uri, "inventory")
    assert done.returncode == 0, done.stderr.decode()
    return Metadata(safexml.parse(done.stdout))


def lines(host: Libvirt, *words: str) -> list[list[str]]:
    done = run("qb-host-libvirt", host.uri, *words)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return [line.split("\t") for line in done.stdout.decode().splitlines()]


def image(host: Libvirt, name: str, data: bytes, size: int = 4 * MiB) -> Path:
    path = host.place / "images" / name
    path.write_bytes(data)
    os.truncate(path, size)
    return path


def test_the_inventory(libvirt: Libvirt) -> None:
    root, more = image(libvirt, "root", b"root"), image(libvirt, "more", b"more", MiB)
    medium = image(libvirt, "cd.iso", b"")
    devices = disk(root) + disk(more, "vdb")
    devices += f"<disk type='file' device='cdrom'><source file='{medium}'/><target dev='hda' bus='ide'/></disk>"
    devices += "<graphics type='vnc' passwd='sesame'/>"
    uuid = libvirt.define("work", devices)
    assert inventory(libvirt).by_name["dom0"].kind == "AdminVM"
    domain = inventory(libvirt).by_name["work"]
    assert (domain.kind, domain.other_name) == ("StandaloneVM", None)
    assert [(volume.name, volume.save_on_stop) for volume in domain.volumes()] == [("vda", True), ("vdb", True)]
    assert domain.element.findtext("libvirt/domain/uuid") == uuid
    graphics = domain.element.find("libvirt/domain/devices/graphics")
    assert graphics is not None and graphics.get("passwd") == "sesame"
    assert lines(libvirt, "volumes", "work") == [
        ["vda", f"file:{root}", str(4 * MiB), "4096", "no", "yes"],
        ["vdb", f"file:{more}", str(MiB), "4096", "no", "yes"],
    ]
    assert lines(libvirt, "files", "work") == lines(libvirt, "files", "dom0") == lines(libvirt, "volumes", "dom0") == []
    assert lines(libvirt, "unsaved") == [["work", str(medium), "the medium of a removable drive, hda"]]
    libvirt.virsh("start", "--paused", uuid)
    assert [line[4] for line in lines(libvirt, "volumes", "work")] == ["yes", "yes"]


def test_names_that_a_qubes_xml_cannot_have(libvirt: Libvirt, place: Path) -> None:
    uuids = {libvirt.define(name, disk(image(libvirt, f"odd{at}", b"x"))): name for at, name in enumerate(ODD)}
    libvirt.define("a-b", disk(image(libvirt, "plain", b"y")))
    found = inventory(libvirt)
    assert len(found.domains) == len(ODD) + 2
    assert {domain.element.findtext("libvirt/domain/uuid") for domain in found.domains} >= uuids.keys()
    by_other = {domain.other_name: domain.name for domain in found.domains}
    assert (by_other["a b"], by_other["a:b"], by_other["ä"], by_other["t\tb"]) == ("a-b-2", "a-b-3", "vm--", "t-b")
    assert found.by_name["a-b"].other_name is None
    for domain in found.domains[1:]:
        assert [line[0] for line in lines(libvirt, "volumes", domain.name)] == ["vda"]
    done = bash(
        f"cd {place} && {CREATE} --host 'libvirt:{libvirt.uri}' -o a 'a b' t-b && qb-backup list --json "
        "--passphrase-file passphrase a"
    )
    assert done.returncode == 0, done.stderr.decode()
    said = done.stderr.decode()
    assert 'qb-backup: warning: the domain "a b" is called a-b-2 in an archive\n' in said
    assert 'warning: the domain "t\\tb" is called t-b in an archive\n' in said
    assert b'"a-b-2"' in done.stdout and b'"t-b"' in done.stdout and b'"a-b"' not in done.stdout
    done = bash(
        f"cd {place} && mkdir out && qb-backup restore -q --yes --passphrase-file passphrase --host out "
        "--include 'a b' a && find out -name '*.img'"
    )
    assert (done.returncode, done.stdout.decode()) == (0, "out/a-b-2/vda.img\n"), done.stderr.decode()
    assert (place / "out/a-b-2/vda.img").read_bytes() == (libvirt.place / "images/odd0").read_bytes()
    kept = Metadata(safexml.parse((place / "out/qubes.xml").read_bytes())).by_name["a-b-2"]
    assert kept.other_name == "a b"


def test_a_domain_that_has_too_much_is_named(libvirt: Libvirt) -> None:
    libvirt.define("good", disk(image(libvirt, "good", b"x")))
    nested = "<x:a xmlns:x='urn:x'>" + "<x:b>" * 40 + "</x:b>" * 40 + "</x:a>"
    libvirt.define("deep", "", rest=f"<metadata>{nested}</metadata>")
    assert list(inventory(libvirt).by_name) == ["dom0", "good"]
    assert lines(libvirt, "unsaved") == [["-", "the domain deep", "the metadata has elements nested more than 28 deep"]]
    done = run("qb-host-libvirt", libvirt.uri, "volumes", "deep")
    assert (done.returncode, done.stderr.decode()) == (
        1,
        "qb-host-libvirt: error: deep: the metadata has elements nested more than 28 deep\n",
    )


def test_a_volume_of_a_pool_and_those_that_cannot_be_read(libvirt: Libvirt) -> None:
    pool = libvirt.place / "images/pool"
    pool.mkdir()
    libvirt.virsh("pool-create-as", "p", "dir", f"--target={pool}")
    try:
        libvirt.virsh("vol-create-as", "p", "-v 1", str(MiB))
        source = "<source pool='p' volume='-v 1'/><target dev='vda'/>"
        libvirt.define("pooled", f"<disk type='volume'><driver name='qemu' type='raw'/>{source}</disk>")
        assert [line[:3] for line in lines(libvirt, "volumes", "pooled")] == [["vda", f"file:{pool}/-v 1", str(MiB)]]
    finally:
        libvirt.virsh("pool-destroy", "p")
    network = "<source protocol='nbd' name='x'><host name='127.0.0.1' port='1'/></source><target dev='vda'/>"
    libvirt.define("far", f"<disk type='network'><driver name='qemu' type='raw'/>{network}</disk>")
    libvirt.define("gone", disk("/nowhere/x"))
    libvirt.define("odd", disk(image(libvirt, "ä", b"x")))
    for name, message in {
        "pooled": "error: virsh vol-path: ",
        "far": "error: far:vda cannot be read while the machine is off: its kind is network\n",
        "gone": "error: cannot open /nowhere/x: No such file or directory\n",
        "odd": f"error: odd:vda has a path that is not printable ASCII: {libvirt.place}/images/ä\n",
        "none-such": "error: there is no domain none-such\n",
    }.items():
        done = run("qb-host-libvirt", libvirt.uri, "volumes", name)
        assert done.returncode == 1
        assert f"qb-host-libvirt: {message}" in done.stderr.decode(), name


def test_things_that_libvirt_keeps_are_named(libvirt: Libvirt) -> None:
    path = libvirt.place / "images/s"
    assert run("qemu-img", "create", "-q", "-f", "qcow2", path, "4M").returncode == 0
    uuid = libvirt.define("kept", disk(path, form="qcow2"))
    libvirt.virsh("snapshot-create", uuid)
    assert lines(libvirt, "unsaved") == [
        ["kept", "the snapshots of the machine in libvirt", "only its present state is saved"]
    ]


def test_a_machine_of_libvirt_is_not_touched(libvirt: Libvirt, place: Path) -> None:
    libvirt.define("work", disk(image(libvirt, "root", b"root")))
    before = libvirt.virsh("list", "--all")
    for words, message in {
        ("remove", "work"): "work is not a domain that a restore left unfinished",
        ("remove", "work", "mark"): "work is not a domain that a restore left unfinished",
    }.items():
        done = run("qb-host-libvirt", libvirt.uri, *words, QB_LIBVIRT_DIR=str(place))
        assert (done.returncode, done.stderr.decode()) == (5, f"qb-host-libvirt: error: {message}\n")
    done = run("qb-host-libvirt", libvirt.uri, "remove", "nobody", QB_LIBVIRT_DIR=str(place))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert lines(libvirt, "defaults") == [["further", "tpm"]]
    assert libvirt.virsh("list", "--all") == before


def test_no_libvirtd(tmp_path: Path) -> None:
    need("virsh")
    uri = f"qemu+unix:///system?socket={tmp_path}/none"
    done = run("qb-host-libvirt", uri, "inventory")
    message = f"Failed to connect socket to '{tmp_path}/none': No such file or directory"
    assert (done.returncode, done.stderr.decode()) == (1, f"qb-host-libvirt: error: virsh list: {message}\n")
    done = run("qb-backup", "create", "--host", f"libvirt:{uri}", "-n")
    assert done.returncode == 1 and message in done.stderr.decode()


def test_virsh_is_missing(tmp_path: Path) -> None:
    (tmp_path / "python3").symlink_to(run("bash", "-c", "type -P python3").stdout.decode().strip())
    done = run(Path(__file__).parents[2] / "bin/qb-host-libvirt", "", "inventory", PATH=str(tmp_path))
    assert (done.returncode, done.stderr.decode()) == (
        1,
        "qb-host-libvirt: error: virsh is not installed\n"
        "hint: Debian has it in the package libvirt-clients, Fedora in libvirt-client\n",
    )


def test_the_driver_of_libvirt_for_tests() -> None:
    need("virsh")
    done = run("qb-host-libvirt", "test:///default", "inventory")
    assert done.returncode == 0
    domain = Metadata(safexml.parse(done.stdout)).by_name["test"]
    assert [volume.name for volume in domain.volumes()] == ["vda"]


def test_images_of_a_machine_that_is_off(libvirt: Libvirt, place: Path) -> None:
    """An image is read through its backing file. It is locked meanwhile, so there is a warning."""
    base = image(libvirt, "base.raw", b"base", MiB)
    top = libvirt.place / "images/top.qcow2"
    words = "-f", "qcow2", "-b", base, "-F", "raw"
    assert run("qemu-img", "create", "-q", *words, top).returncode == 0
    libvirt.define("off", disk(top, form="qcow2"))
    assert lines(libvirt, "volumes", "off")[0][:3] == ["vda", f"qcow2:{top}", str(MiB)]
    done = bash(
        f"cd {place} && {CREATE} --host 'libvirt:{libvirt.uri}' -o a && mkdir out && "
        "qb-backup restore -q --yes --passphrase-file passphrase --host out a"
    )
    warning = "no snapshot of off can be taken: do not start it before it has been read"
    assert (done.returncode, done.stderr.decode()) == (0, f"qb-backup: warning: {warning}\n")
    assert (place / "out/off/vda.img").read_bytes() == base.read_bytes()


def test_an_image_of_a_machine_that_is_off_is_cloned(libvirt: Libvirt, place: Path) -> None:
    """Where the file system can, nothing is locked, so there is no warning."""
    with file_system(place, "xfs", 512 * MiB) as reflinks:
        top = reflinks / "top.qcow2"
        assert run("qemu-img", "create", "-q", "-f", "qcow2", top, "1M").returncode == 0
        libvirt.define("off", disk(top, form="qcow2"))
        done = bash(f"cd {place} && {CREATE} --host 'libvirt:{libvirt.uri}' -v -o a")
        assert done.returncode == 0 and b"warning" not in done.stderr, done.stderr.decode()
        assert f"qcow2:{reflinks}/.qbtools-" in done.stderr.decode()
        assert [path.name for path in reflinks.iterdir()] == ["top.qcow2"]
