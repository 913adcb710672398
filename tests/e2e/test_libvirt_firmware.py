"""Machines whose firmware and TPM keep state of their own come back with it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from libvirtd import Libvirt, disk
from libvirtsite import Site
from support import missing, need, run

MiB = 1 << 20
FIRMWARE = [[Path("/usr/share/OVMF", f"OVMF_{part}{size}.fd") for part in ("CODE", "VARS")] for size in ("_4M", "")]
TPM = "<tpm model='tpm-tis'><backend type='emulator' version='2.0'/></tpm>"

# Kills its caller, the host, before the domain is defined.
_KILLS = """#!/bin/bash
case " $* " in *" define "*) kill -9 $PPID; exit 1 ;; esac
exec REAL "$@"
"""


def states(host: Libvirt) -> Path:
    """The directory with the states of all TPMs."""
    return host.place / "lib/swtpm"


def with_tpm(host: Libvirt, devices: str, **words: str | int) -> str:
    """Defines a machine with a TPM that was used before; its UUID."""
    uuid = host.define("work", devices + TPM, **words)  # type: ignore[arg-type]
    place = states(host) / uuid / "tpm2"
    place.mkdir(0o700, parents=True)
    done = run("swtpm_setup", "--tpm2", "--createek", "--tpmstate", place, "--logfile", host.place / "setup.log")
    assert done.returncode == 0, done.stdout + done.stderr
    for path in (place, *place.iterdir()):
        shutil.chown(path, "daemon", "daemon")
    return uuid


def tree(place: Path) -> dict[str, tuple[str, str, str, bytes]]:
    """Mode, owner, group and content of all below a directory, and of itself."""
    found = {}
    for path in (place, *sorted(place.rglob("*"))):
        if path.name != ".lock":
            about = oct(path.stat().st_mode), path.owner(), path.group()
            found[str(path.relative_to(place))] = (*about, path.read_bytes() if path.is_file() else b"")
    return found


@pytest.fixture
def firm(site: Site) -> Iterator[Site]:
    need("swtpm", "swtpm_setup", "nsenter")
    site.inside()
    yield site
    site.host.clean()
    shutil.rmtree(states(site.host), ignore_errors=True)


def test_firmware_and_tpm_come_back_under_another_name(firm: Site) -> None:
    """The variables of the firmware, and the state of the TPM: the machine starts with both."""
    code, variables = next((pair for pair in FIRMWARE if all(path.exists() for path in pair)), (None, None))
    if code is None or variables is None:
        missing("there is no OVMF")
    nvram = firm.place / "nvram"
    shutil.copyfile(variables, nvram)
    with nvram.open("r+b") as file:
        file.seek(-16, os.SEEK_END)
        file.write(b"only in this one")  # nothing looks there
    (firm.place / "root").write_bytes(bytes(MiB))
    loader = f"<loader readonly='yes' type='pflash'>{code}</loader><nvram>{nvram}</nvram>"
    console = "<serial type='pty'/>"
    old = with_tpm(
        firm.host, disk(firm.place / "root") + console, os_words=loader, rest="<features><acpi/></features>", memory=256
    )
    before = tree(states(firm.host) / old)
    assert {name: facts[:3] for name, facts in before.items()}["tpm2"] == ("0o40700", "daemon", "daemon")
    archive = firm.save(f"--host=libvirt:{firm.host.uri}")
    assert firm.restore("--rename=work=again", archive) == []
    (new,) = firm.host.uuids() - {old}
    assert tree(states(firm.host) / new)["tpm2"] == before["tpm2"]
    assert {name: facts[3] for name, facts in tree(states(firm.host) / new).items()} == {
        name: facts[3] for name, facts in before.items()
    }
    assert firm.xml(new).findtext("os/nvram") == f"{firm.images}/again-nvram.img"
    assert (firm.images / "again-nvram.img").read_bytes() == nvram.read_bytes()
    firm.host.virsh("start", new)
    with Path(firm.host.virsh("ttyconsole", new).strip()).open("rb", buffering=0) as screen:
        said = b""
        until = time.monotonic() + 120
        while b"BdsDxe" not in said:
            assert time.monotonic() < until, said
            said += screen.read(4096)
    firm.host.virsh("destroy", new)


def test_no_state_is_left_of_a_restore_that_fails(firm: Site) -> None:
    (firm.place / "root").write_bytes(bytes(MiB))
    old = with_tpm(firm.host, disk(firm.place / "root"))
    archive = firm.save(f"--host=libvirt:{firm.host.uri}")
    real = run("bash", "-c", "type -P virsh").stdout.decode().strip()
    (firm.place / "programs").mkdir()
    (firm.place / "programs/virsh").write_text(_KILLS.replace("REAL", real))
    (firm.place / "programs/virsh").chmod(0o755)
    path = f"{firm.place}/programs:{os.environ['PATH']}"
    done = firm.run(*firm.words("--rename=work=again", archive), PATH=path)
    assert done.returncode == 1
    assert [one.name for one in states(firm.host).iterdir()] == [old]
    assert firm.left() == []
    # The machine is gone, and libvirt was told to keep the state of its TPM.
    firm.host.virsh("undefine", old, "--keep-tpm")
    done = firm.run(*firm.words(archive))
    message = f"work cannot get the state of its TPM: /var/lib/libvirt/swtpm/{old} already exists, but no domain has it"
    assert done.returncode == 1 and message in done.stderr.decode()
    assert [one.name for one in states(firm.host).iterdir()] == [old] and firm.left() == []
    shutil.rmtree(states(firm.host) / old)
    assert firm.restore(archive) == []
    assert [one.name for one in states(firm.host).iterdir()] == [old] and firm.host.uuids() == {old}
