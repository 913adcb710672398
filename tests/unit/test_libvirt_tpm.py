"""The state of TPMs: what of an archive comes to the place of libvirt."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from qbtools.errors import Failed, Refused
from qbtools.hosts.libvirt import tpm
from qbtools.hosts.libvirt.tpm import States

UUID = "5a0c9b3e-7a5b-4d8e-9d2f-0123456789ab"


@pytest.fixture
def states(tmp_path: Path) -> States:
    return States("qemu:///session", {"XDG_CONFIG_HOME": str(tmp_path / "config")})


@pytest.fixture
def came(tmp_path: Path) -> Path:
    """What came out of an archive."""
    (tmp_path / "came/tpm2").mkdir(parents=True)
    (tmp_path / "came/tpm2/tpm2-00.permall").write_bytes(b"state")
    (tmp_path / "came/tpm2/.lock").touch()
    return tmp_path / "came"


def modes(place: Path) -> dict[str, str]:
    found = [place, *sorted(place.rglob("*"))]
    return {str(path.relative_to(place)): stat.filemode(path.lstat().st_mode) for path in found}


def test_the_place_is_that_of_libvirt(states: States, tmp_path: Path) -> None:
    assert States("qemu:///system", {}).path(UUID) == f"/var/lib/libvirt/swtpm/{UUID}"
    assert States("qemu+unix:///system?socket=/x/session", {}).path(UUID) == f"/var/lib/libvirt/swtpm/{UUID}"
    assert States("qemu:///session", {"HOME": "/home/a"}).path(UUID) == f"/home/a/.config/libvirt/qemu/swtpm/{UUID}"
    assert states.path(UUID) == f"{tmp_path}/config/libvirt/qemu/swtpm/{UUID}"


def test_put_and_removed(states: States, came: Path) -> None:
    """The modes are those of libvirt, whatever the umask is."""
    said: list[str] = []
    states.check_free("work", UUID)
    before = os.umask(0o077)
    try:
        states.put("work", str(came), UUID, said.append)
    finally:
        os.umask(before)
    place = Path(states.path(UUID))
    assert said == []
    assert modes(place) == {".": "drwx--x--x", "tpm2": "drwx------", "tpm2/tpm2-00.permall": "-rw-------"}
    assert (place / "tpm2/tpm2-00.permall").read_bytes() == b"state"
    with pytest.raises(Refused, match=f"cannot get the state of its TPM: {place} already exists, but no domain has it"):
        states.check_free("work", UUID)
    with pytest.raises(Failed, match="File exists"):
        states.put("work", str(came), UUID, said.append)
    states.remove(UUID)
    states.remove(UUID)
    assert not place.exists()


def test_only_files_of_swtpm_are_taken(states: States, came: Path) -> None:
    (came / "tpm2/link").symlink_to("/etc/shadow")
    (came / "tpm2/below").mkdir()
    (came / "tpm2/-x").touch()
    (came / "tpm2/a\nb").touch()
    (came / "tpm1.2").symlink_to("tpm2")
    (came / "etc").mkdir()
    (came / "file").touch()
    said: list[str] = []
    states.put("work", str(came), UUID, said.append)
    assert list(modes(Path(states.path(UUID)))) == [".", "tpm2", "tpm2/tpm2-00.permall"]
    names = ["etc", "file", "tpm1.2", "tpm2/-x", "tpm2/a\\nb", "tpm2/below", "tpm2/link"]
    assert said == [f"work: '{name}' in the state of its TPM is not restored" for name in names]


def test_an_archive_without_it(states: States, tmp_path: Path) -> None:
    said: list[str] = []
    states.put("work", str(tmp_path / "none"), UUID, said.append)
    assert said == ["work: the archive has no state of its TPM: it gets a new one"]
    assert not Path(states.path(UUID)).exists()


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("", "default"),
        ('#swtpm_user = "daemon"\n', "default"),
        ('swtpm_user = "daemon"\n  swtpm_group="daemon" # both\n', "daemon"),
        ('swtpm_user = "+77"\nswtpm_group = "78"\n', (77, 78)),
        ('swtpm_user = "no-such-user"\nswtpm_group = "root"\n', (0, 0)),
    ],
)
def test_the_owner_is_who_runs_swtpm(
    text: str, owner: str | tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "qemu.conf").write_text(text)
    monkeypatch.setattr(tpm, "_SETTINGS", str(tmp_path / "qemu.conf"))
    monkeypatch.setattr(tpm, "_USER", "bin")
    name = {"default": "bin", "daemon": "daemon"}.get(str(owner))
    expected = owner if name is None else (tpm._number(name, tpm._user), tpm._number(name, tpm._group))
    assert tpm._owner() == expected
    (tmp_path / "qemu.conf").unlink()
    assert tpm._owner() == (tpm._number("bin", tpm._user), tpm._number("bin", tpm._group))
