"""A machine with Linux for tests of the guest agent: the kernel of this machine, busybox, and qemu-ga."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import subprocess
from pathlib import Path

from support import missing, need, run

AGENT = "<channel type='unix'><source mode='bind'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
"""The channel of a guest agent."""

PATIENCE = 300.0
"""Seconds in which it has started, even on a machine that is very busy."""

_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "ext4")
_PORT = "/dev/vport0p1"

# Mounts its disk, and writes to it without an end.
_INIT = f"""#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /sys /dev /run /disk
$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b mount -t devtmpfs none /dev
while read -r module; do $b insmod /modules/$module; done </modules/order
$b mount -t ext4 /dev/vda /disk || $b poweroff -f
(while :; do $b date >>/disk/log; $b sync; $b usleep 200000; done) &
while [ ! -e {_PORT} ]; do $b usleep 50000; done
exec qemu-ga -m virtio-serial -p {_PORT} -t /run
"""


def start_words(place: Path) -> str:
    """Makes an initial file system in place. Returns what the element `os` of a machine needs to start it."""
    need("busybox", "cpio", "modprobe", "qemu-ga")
    kernels = sorted(Path("/boot").glob("vmlinuz-*"), key=lambda path: list(map(int, re.findall(r"\d+", path.name))))
    if not kernels:
        missing("there is no kernel in /boot")
    tree = place / "tree"
    for name in ("bin", "modules"):
        (tree / name).mkdir(parents=True)
    (tree / "init").write_text(_INIT)
    (tree / "init").chmod(0o755)
    agent = str(shutil.which("qemu-ga"))
    shutil.copy(str(shutil.which("busybox")), tree / "bin/busybox")
    shutil.copy(agent, tree / "bin/qemu-ga")
    for library in re.findall(r"(/\S+) \(0x", _said("ldd", agent)):
        (tree / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, tree / library[1:])
    _copy_modules(kernels[-1].name.removeprefix("vmlinuz-"), tree / "modules")
    initrd = place / "initrd"
    with initrd.open("wb") as out:
        names = "\n".join(os.path.relpath(path, tree) for path in sorted(tree.rglob("*")))
        argv = ["cpio", "--quiet", "-o", "-H", "newc"]
        subprocess.run(argv, input=names.encode(), stdout=out, cwd=tree, check=True)
    line = "quiet panic=-1 mitigations=off nokaslr"
    return f"<kernel>{kernels[-1]}</kernel><initrd>{initrd}</initrd><cmdline>{line}</cmdline>"


def _copy_modules(version: str, target: Path) -> None:
    order: list[str] = []
    for module in _MODULES:
        said = _said("modprobe", "-S", version, "--show-depends", module)
        for path in map(Path, re.findall(r"^insmod (\S+)", said, re.MULTILINE)):
            name = path.name.removesuffix(".xz")
            if name not in order:
                data = path.read_bytes()
                (target / name).write_bytes(lzma.decompress(data) if path.suffix == ".xz" else data)
                order.append(name)
    (target / "order").write_text("".join(f"{name}\n" for name in order))


def _said(*argv: str) -> str:
    done = run(*argv)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()
