"""Machines are restored to a real libvirtd, from archives of libvirt and of Qubes OS."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest
from guests import SECTOR, boot_disk, counter
from hostdirs import Machine, make_host
from libvirtd import disk
from libvirtsite import SECRET, Site, raw, runs
from running import Running, kill, wait_until
from support import bash, run

MiB = 1 << 20
INTERFACE = "<interface type='user'><mac address='52:54:00:11:22:33'/><model type='virtio'/></interface>"
HOSTILE = """<filesystem type='mount'><source dir='/etc'/><target dir='etc'/></filesystem>
<serial type='file'><source path='/etc/cron.d/x'/></serial>
<disk type='file' device='cdrom'><source file='/etc/shadow'/><target dev='sda' bus='sata'/></disk>
<disk type='file' device='disk'><source file='/etc/shadow'/><target dev='vdb' bus='virtio'/><readonly/></disk>
<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/><product id='0x2'/></source></hostdev>
<interface type='ethernet'><mac address='52:54:00:11:22:34'/><script path='/bin/sh'/></interface>"""

# Kills its caller, the host, after the domain has been defined.
_KILLS = """#!/bin/bash
REAL "$@" || exit
case " $* " in *" define "*) kill -9 $PPID ;; esac
"""


def without_counter(data: bytes) -> bytes:
    return data[: 512 * SECTOR] + data[512 * (SECTOR + 1) :]


def test_saved_while_it_writes_and_restored_under_another_name(site: Site) -> None:
    images = site.host.place / "images"
    boot_disk(images / "boot.qcow2")
    (images / "data.raw").write_bytes(bytes(MiB) + b"data" + bytes(MiB - 4))
    first, second = (f"<boot order='{number}'/>" for number in (1, 2))
    devices = disk(images / "boot.qcow2", "vda", "qcow2", first) + disk(images / "data.raw", "vdb", "raw", second)
    old = site.host.define("a b", devices + INTERFACE)
    site.host.virsh("start", old)
    wait_until(lambda: counter(raw(images / "data.raw")) > 3, "the machine writes")
    archive = site.save(f"--host=libvirt:{site.host.uri}")
    site.host.virsh("destroy", old)
    called = 'the domain "a b" is called a-b in an archive'
    assert site.restore("--rename=a-b=again", archive) == [called]
    (new,) = site.host.uuids() - {old}
    found = site.xml(new)
    assert found.findtext("name") == "again"
    assert [one.get("file") for one in found.iterfind("devices/disk/source")] == [
        f"{site.images}/again-vda.qcow2",
        f"{site.images}/again-vdb.img",
    ]
    assert [one.get("type") for one in found.iterfind("devices/disk/driver")] == ["qcow2", "raw"]
    assert [one.get("address") for one in found.iterfind("devices/interface/mac")] != ["52:54:00:11:22:33"]
    boot, data = raw(site.images / "again-vda.qcow2"), raw(site.images / "again-vdb.img")
    assert counter(boot) - counter(data) in (0, 1) and counter(data) > 3  # one point in time
    assert without_counter(boot) == without_counter(raw(images / "boot.qcow2"))
    assert without_counter(data) == without_counter(raw(images / "data.raw"))
    assert site.left() == ["again-vda.qcow2", "again-vdb.img"]
    runs(site.host, new, site.images / "again-vdb.img")
    # The old one exists, so its name is taken, and the machine gets another UUID.
    assert site.restore(archive) == [called]
    assert sorted(site.host.virsh("list", "--all", "--name").split("\n")[:3]) == ["a b", "a-b-1", "again"]


def test_mac_addresses_that_are_kept(site: Site) -> None:
    """Another machine that has one of them is named, also if the machine comes back as it was."""
    (site.place / "root").write_bytes(b"root" + bytes(MiB - 4))
    old = site.host.define("a b", disk(site.place / "root") + INTERFACE)
    archive = site.save(f"--host=libvirt:{site.host.uri}")
    shared = 'its MAC address 52:54:00:11:22:33 is also that of the domain "{}"'
    called = 'the domain "a b" is called a-b in an archive'
    assert site.restore("--rename=a b=again", "--keep-macs", archive) == [called, f"again: {shared.format('a b')}"]
    (new,) = site.host.uuids() - {old}
    assert [one.get("address") for one in site.xml(new).iterfind("devices/interface/mac")] == ["52:54:00:11:22:33"]
    site.host.virsh("undefine", old)
    said = site.restore(archive)
    assert said == [f"a-b: {shared.format('again')}"] and site.host.uuids() == {old, new}


def test_a_machine_that_is_lost_comes_back_as_it_was(site: Site) -> None:
    pool = site.place / "pool"
    pool.mkdir()
    (site.place / "root").write_bytes(b"root" + bytes(MiB - 4))
    old = site.host.define("a b", disk(site.place / "root") + INTERFACE)
    archive = site.save(f"--host=libvirt:{site.host.uri}")
    before = site.xml(old)
    site.host.virsh("undefine", old)
    site.host.virsh("pool-create-as", "default", "dir", f"--target={pool}")
    site.settings["QB_LIBVIRT_POOL"] = ""
    try:
        assert site.restore(archive) == []
        assert "a-b-vda.img" in site.host.virsh("vol-list", "default")
    finally:
        site.host.virsh("pool-destroy", "default")
    after = site.xml(old)
    for path in ("name", "devices/interface/mac", "memory", "vcpu", "os/type"):
        one, other = after.find(path), before.find(path)
        assert one is not None and other is not None
        assert (one.text, one.attrib) == (other.text, other.attrib)
    assert (pool / "a-b-vda.img").read_bytes() == (site.place / "root").read_bytes()


def test_what_the_host_lacks_is_in_the_plan(site: Site) -> None:
    """A plan says it before anything is created, and a restore without a plan in sight warns of it."""
    (site.place / "root").write_bytes(b"root" + bytes(MiB - 4))
    lab = "<interface type='network'><source network='lab'/><model type='virtio'/></interface>"
    processor = "<cpu mode='custom'><model>Skylake-Server</model></cpu>"
    site.host.define("work", disk(site.place / "root") + lab, rest=processor)
    archive = site.save(f"--host=libvirt:{site.host.uri}")
    notes = [
        "this host does not have the processor Skylake-Server: maximum is used",
        'this host has no network "lab": the network of the emulator is used',
    ]
    words = site.words("--rename=work=again", archive)
    done = run(*words, "--dry-run", **site.settings)
    assert (done.returncode, done.stderr) == (0, b"")
    for note in notes:
        assert f"\n#   again: {note}\n" in done.stdout.decode()
    document = json.loads(run(*words, "--dry-run", "--json", **site.settings).stdout)
    assert document["domains"][0]["notes"] == ["name: work → again", *notes]
    xml = f"qb-unseal qubes.xml <'{archive}' | gzip -dc | qb-tarextract --raw"
    planned = bash(
        f"{xml} | qb-plan --rename=work=again --host='libvirt:{site.host.uri}' --metadata=-", **site.settings
    )
    assert planned.stdout == done.stdout, planned.stderr.decode()
    assert site.restore("--rename=work=again", archive) == [f"again: {note}" for note in notes]


def test_what_an_archive_may_not_bring(site: Site) -> None:
    (site.place / "root").write_bytes(b"root" + bytes(MiB - 4))
    command = "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:arg value='-S'/>"
    old = site.host.define("evil", disk(site.place / "root") + HOSTILE, rest=f"{command}</qemu:commandline>")
    archive = site.save(f"--host=libvirt:{site.host.uri}")
    site.host.virsh("undefine", old)
    said = site.restore(archive)
    assert said[0].startswith('evil: its interface of type "ethernet" cannot be restored: the network of the emulator')
    assert said[1].startswith("evil: these parts of its XML are not restored: ") and len(said) == 2
    for part in ("devices/disk vdb", "devices/filesystem", "devices/hostdev", "devices/serial", "qemu:commandline"):
        assert part in said[1]
    text = site.host.virsh("dumpxml", "--inactive", old)
    for word in ("/etc", "/bin/sh", "hostdev", "commandline", "filesystem", "ethernet"):
        assert word not in text
    assert [one.get("file") for one in fromstring(text).iterfind("devices/disk/source")] == [
        f"{site.images}/evil-vda.img"
    ]


@pytest.fixture(scope="module")
def qubes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive like that of a Qubes OS: a machine that starts, one that needs a template, and its template."""
    place = tmp_path_factory.mktemp("qubes")
    boot_disk(place / "boot.qcow2")
    boot = raw(place / "boot.qcow2")
    machines = [
        Machine("deb", "TemplateVM", data={"root": b"deb", "private": b""}),
        Machine("net", "AppVM", {"template": "deb", "provides_network": "True"}, {"private": b"net"}),
        Machine(
            "work",
            properties={"netvm": "net", "kernel": "6.6", "vcpus": "2", "memory": "64", "maxmem": "128"},
            data={"root": boot, "private": bytes(MiB)},
        ),
    ]
    make_host(place / "A", machines)
    done = run("qb-backup", "create", "-q", "--logn=10", f"--host={place}/A", f"--output={place}/q.qb", **SECRET)
    assert done.returncode == 0, done.stderr.decode()
    return place / "q.qb"


def test_a_machine_of_qubes_starts(site: Site, qubes: Path) -> None:
    said = site.restore("--include=work", "--netvm=none", qubes)
    assert not [line for line in said if "XML" in line]
    (uuid,) = site.host.uuids()
    found = site.xml(uuid)
    assert (found.findtext("name"), found.findtext("vcpu"), found.findtext("memory")) == ("work", "2", str(128 << 10))
    assert [(one.get("dev"), one.get("bus")) for one in found.iterfind("devices/disk/target")] == [
        ("vda", "virtio"),
        ("vdb", "virtio"),
    ]
    assert "q35" in found.find("os/type").get("machine", "")  # type: ignore[union-attr]
    runs(site.host, uuid, site.images / "work-root.img")


def test_a_machine_without_all_of_its_volumes_is_refused(site: Site, qubes: Path) -> None:
    done = run(*site.words(qubes), **site.settings)
    assert done.returncode == 1
    assert "net is of class AppVM: libvirt has no machines whose volumes are partly those of another one" in (
        done.stderr.decode()
    )
    assert site.left() == [] and site.host.uuids() == set()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_interrupted_in_the_middle(number: signal.Signals, site: Site, qubes: Path) -> None:
    (site.place / "run").mkdir()
    words = " ".join(site.words("--include=work", "--netvm=none", qubes)).replace(site.host.uri, f"'{site.host.uri}'")
    with Running(site.place / "run", site.place, **site.settings) as running:
        running.hold_in("vm3/private.img", 100)
        running.start(f"exec {words}")
        running.hold()
        assert {"work-root.img", "work-private.img"} <= set(site.left())
        if number == signal.SIGKILL:
            for pid in running.processes():
                kill(pid, number)
        else:
            kill(running.one("qb-run"), number)
            running.release()
        running.gone()
    assert site.host.uuids() == set()
    if number == signal.SIGTERM:
        assert site.left() == []
    site.restore("--include=work", "--netvm=none", "--rename=work=other", qubes)
    assert site.left() == ["other-private.img", "other-root.img"] and len(site.host.uuids()) == 1


def test_killed_when_libvirt_has_it(site: Site) -> None:
    """What libvirt has is complete: the next run removes nothing of it."""
    (site.place / "root").write_bytes(b"root" + bytes(MiB - 4))
    site.host.define("work", disk(site.place / "root"))
    archive = site.save(f"--host=libvirt:{site.host.uri}")
    real = run("bash", "-c", "type -P virsh").stdout.decode().strip()
    (site.place / "programs").mkdir()
    (site.place / "programs/virsh").write_text(_KILLS.replace("REAL", real))
    (site.place / "programs/virsh").chmod(0o755)
    path = f"{site.place}/programs:{os.environ['PATH']}"
    done = run(*site.words("--rename=work=one", archive), **site.settings, PATH=path)
    assert done.returncode == 1
    assert len(site.host.uuids()) == 2
    site.restore("--rename=work=two", archive)
    assert site.left() == ["one-vda.img", "two-vda.img"] and len(site.host.uuids()) == 3
