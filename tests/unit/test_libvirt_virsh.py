"""What virsh prints is checked: nothing that it says is taken for something else."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote

import pytest

from qbtools.errors import Failed
from qbtools.hosts.libvirt.virsh import Named, Virsh

UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"


@pytest.fixture
def virsh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Virsh:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Virsh("test:///default")


def prints(place: Path, text: str) -> None:
    """The program virsh prints this text."""
    (place / "virsh").write_text(f"#!/bin/sh\nprintf %b {quote(text)}\n")
    (place / "virsh").chmod(0o755)


def test_names_of_domains(virsh: Virsh, tmp_path: Path) -> None:
    prints(tmp_path, f"{UUID} a b\n{UUID} -x \n\n")
    assert virsh.domains() == [Named(UUID, "a b"), Named(UUID, "-x")]
    prints(tmp_path, "\n")
    assert virsh.domains() == []


@pytest.mark.parametrize("text", ["error", f"x{UUID} a", UUID[:-1], "\\0\\0", f"{UUID} a\nb\n"])
def test_what_is_no_list_of_domains(virsh: Virsh, tmp_path: Path, text: str) -> None:
    prints(tmp_path, f"{text}\n")
    with pytest.raises(Failed, match='^virsh list prints ".*" where a UUID should be$'):
        virsh.domains()
    with pytest.raises(Failed, match='^virsh list prints ".*" where a UUID should be$'):
        virsh.running()


@pytest.mark.parametrize("path", ["/a", "/a b ", "/a\nb", ""])
def test_the_path_of_a_volume_may_have_any_character(virsh: Virsh, tmp_path: Path, path: str) -> None:
    prints(tmp_path, f"{path}\n")
    assert virsh.volume_path("pool", "volume") == path
