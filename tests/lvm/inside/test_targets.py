"""The targets of a restore are checked before the first byte: logical volumes, and file systems that ignore case."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from lvm import guest
from lvm.guest import MiB

from qbtools.domains import inventory, qubesxml, safexml
from qbtools.domains.compose import NewVolume, compose
from qbtools.errors import Failed, Refused
from qbtools.runs import targets
from qbtools.runs.targets import How, Wanted
from qbtools.volumes import locate, spots
from qbtools.volumes.kind import TargetOptions
from qbtools.volumes.spots import Apart

OVER = How(TargetOptions(create=True, overwrite=True), parents=True)


def check(words: Sequence[str], size: int, how: How = OVER) -> list[str]:
    """Checks these targets for volumes of this size, all data. Returns the warnings."""
    told: list[str] = []
    document = compose({"vm": {f"v{at}": NewVolume(f"v{at}", size, size) for at in range(len(words))}})
    metadata = qubesxml.Metadata(safexml.parse(document))
    wanted = [Wanted(entry, word) for entry, word in zip(inventory.entries(metadata), words, strict=True)]
    left, rooms = targets.check(wanted, how, told.append)
    targets.check_room(metadata, left, rooms, None, told.append)
    return told


# --- logical volumes ---


@pytest.fixture(scope="module")
def tight() -> Iterator[str]:
    """A group with 16 extents of 4 MiB. `lv` has four of them."""
    with guest.group("tight", 68 * MiB) as vg:
        guest.thick(f"{vg}/lv", 16 * MiB)
        yield vg
        guest.remove(f"{vg}/lv")


def test_the_names_of_a_logical_volume(vg: str, tight: str) -> None:
    number = os.stat(f"/dev/{tight}/lv").st_rdev
    node = Path(f"/dev/dm-{os.minor(number)}")
    if not node.exists():  # udev would make it
        os.mknod(node, stat.S_IFBLK | 0o600, number)
    names = [f"/dev/{tight}/lv", f"/dev/mapper/{tight}-lv", str(node), f"{tight}/lv"]
    for name in [*names, *(f"lvm:{name}" for name in names), *(f"block:{name}" for name in names[:3])]:
        apart = Apart()
        assert apart.add(locate.spot(f"lvm:{vg}/lv"), "another group") is None
        assert apart.add(locate.spot(f"lvm:{tight}/lv"), "first") is None
        assert apart.add(locate.spot(name), "second") == "first", name
    with pytest.raises(Refused, match="have the same target"):
        check([names[1], f"lvm:{tight}/lv"], 16 * MiB)
    with pytest.raises(Refused, match="have the same target"):
        check([f"lvm:{vg}/new", f"lvm:{vg}/pool/new"], MiB)


def test_the_room_of_a_group(tight: str) -> None:
    before = guest.volumes(tight)
    new = [f"lvm:{tight}/new{number}" for number in range(2)]
    assert check(new, 24 * MiB) == []
    with pytest.raises(Refused, match="not enough room for lvm:tight/"):  # the volume that exists would grow, and
        check([f"lvm:{tight}/lv", *new], 21 * MiB)  # 63 MiB of data need 72, because a volume has whole extents
    assert check([f"lvm:{tight}/lv"], 64 * MiB) == []
    assert guest.volumes(tight) == before
    assert os.stat(f"/dev/{tight}/lv") and guest.lvm("lvs", "--noheadings", "-o", "lv_size", f"{tight}/lv").strip()


# --- file systems that ignore case ---

FOLDING = Path("/sys/fs/ext4/features/casefold")
"""It is there if ext4 can ignore case, which that of user-mode Linux cannot."""


def fat(image: Path, size: int) -> None:
    """A new FAT16 file system, made by hand: mkfs.vfat may not be installed."""
    sectors = size // 512
    table = -(-(sectors // 4 + 2) * 2 // 512)
    boot = bytearray(512)
    boot[:62] = b"".join((
        *(b"\xeb\x3c\x90mkfs.fat", (512).to_bytes(2, "little"), b"\4", (1).to_bytes(2, "little"), b"\2"),
        *((512).to_bytes(2, "little"), bytes(2), b"\xf8", table.to_bytes(2, "little"), bytes(8)),
        *(sectors.to_bytes(4, "little"), b"\x80\0\x29abcdNO NAME    FAT16   "),
    ))  # fmt: skip
    boot[510:] = b"\x55\xaa"
    first = b"\xf8\xff\xff\xff".ljust(table * 512, b"\0")
    with image.open("wb") as file:
        file.write(boot + first + first)
        file.truncate(size)


@contextmanager
def mounted(kind: str) -> Iterator[Path]:
    """A new file system of 32 MiB in which names in upper and lower case are the same."""
    image, place, options = guest.PLACE / f"{kind}-image", guest.PLACE / kind, "loop"
    if kind == "vfat":
        guest.call("modprobe", "-a", "vfat", "nls_cp437", "nls_ascii", "nls_utf8")
        fat(image, 32 * MiB)
        options += ",iocharset=ascii,utf8"  # the default of Debian's kernel
    else:
        image.touch()
        os.truncate(image, 32 * MiB)
        guest.call("mke2fs", "-q", "-t", "ext4", "-O", "casefold", image)
    place.mkdir()
    guest.call("mount", "-t", kind, "-o", options, image, place)
    try:
        if kind == "ext4":
            (place / "folded").mkdir()
            guest.call("chattr", "+F", place / "folded")
        yield place / "folded" if kind == "ext4" else place
    finally:
        guest.call("umount", place)
        place.rmdir()
        image.unlink()


def refused(place: Path, *names: str) -> bool:
    try:
        check([f"file:{place}/{name}" for name in names], MiB)
    except Refused as error:
        assert "have the same target" in error.message
        return True
    return False


@pytest.mark.parametrize("kind", ["vfat", *(["ext4"] if FOLDING.exists() else [])])
def test_names_in_upper_and_lower_case(kind: str) -> None:
    with mounted(kind) as place:
        before = os.listdir(place)
        assert spots.folds_case(str(place))
        for names in (("web/a.img", "Web/A.img"), ("\u00fc", "\u00dc"), ("web", "WEB/a"), ("web/a", "WEB")):
            assert refused(place, *names), names
        assert not refused(place, "web/a", "Web/b", "c", "\u00fc")
        assert refused(place, "web./a", "web/a") == refused(place, "a.", "a") == (kind == "vfat")
        assert refused(place, "e\u0301", "\u00e9") == (kind == "ext4"), "only there a composed letter is the same"
        assert os.listdir(place) == before
        (place / "there").write_bytes(b"mine")
        assert refused(place, "THERE", "there")
        with pytest.raises(Refused, match="already exists"):
            check([f"file:{place}/There"], MiB, How(TargetOptions()))


def test_what_vfat_cannot_hold() -> None:
    with mounted("vfat") as place:
        for name in ("a:b", "what?/a"):
            with pytest.raises(Failed, match=r"cannot create .*: Invalid argument") as caught:
                check([f"file:{place}/good", f"file:{place}/{name}"], MiB)
            assert caught.value.hint == "its file system does not accept such a name"
        with pytest.raises(Failed, match="cannot extend .*/big to 4294967296 bytes: File too large"):
            check([f"file:{place}/big"], 1 << 32)
        with pytest.raises(Refused, match="not enough room"):  # there are no sparse files
            check([f"file:{place}/one", f"file:{place}/two"], 20 * MiB)
        assert os.listdir(place) == []
        with locate.open_target(f"file:{place}/v", TargetOptions()) as target:
            target.start(MiB)
            target.write(b"data", MiB // 2)
            target.flush(MiB)
            target.commit()
        assert (place / "V").read_bytes() == bytes(MiB // 2) + b"data" + bytes(MiB // 2 - 4)
