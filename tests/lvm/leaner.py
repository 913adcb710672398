"""Makes libraries in whose place lvm starts faster in user-mode Linux: DIRECTORY. Prints the name and place of each.

There a page that a process touches for the first time takes long. Each program of lvm touches many that it has no use
for: those of libsystemd and of what that needs, for the journal and the system bus, which the tests turn off; and the
table of its commands, which it fills with zeros although it is new. What these libraries have instead does both without
such pages. All that lvm itself does, it does as before.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

IDLE = "libsystemd.so."

MEMSET = """
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#define PAGE 4096

/* Much memory that is to be zeros is private here, so what is in it can be forgotten. All of its pages are made by one
 * system call, and user-mode Linux maps them together when their protection changes.
 */
void *memset(void *place, int byte, size_t size)
{
    char *end = (char *)place + size, *at = place;
    char *first = (char *)(((uintptr_t)place + PAGE - 1) & -PAGE), *last = (char *)((uintptr_t)end & -PAGE);
    if (byte == 0 && size >= 1 << 20 && madvise(first, last - first, MADV_DONTNEED) == 0) {
        madvise(first, last - first, MADV_POPULATE_WRITE);
        mprotect(first, last - first, PROT_READ);
        mprotect(first, last - first, PROT_READ | PROT_WRITE);
        size = first - at;
        __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(0) : "memory");
        at = last, size = end - last;
    }
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(byte) : "memory");
    return place;
}
"""


def output(*argv: str | Path) -> str:
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout


def make(library: Path, functions: dict[str, str]) -> None:
    """A library with these functions and their versions. Nobody calls them; a program that did would end there."""
    script = library.with_suffix(".versions")
    nodes: dict[str, list[str]] = {}
    for name, version in functions.items():
        nodes.setdefault(version, []).append(name)
    script.write_text("".join(f"{version} {{ {'; '.join(names)}; }};\n" for version, names in nodes.items()))
    text = MEMSET + "".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name in functions)
    options = "-x", "c", "-O2", "-ffreestanding", "-nostartfiles", "-shared", "-fPIC", f"-Wl,-soname,{library.name}"
    subprocess.run(
        ["gcc", *options, f"-Wl,--version-script={script}", "-o", library, "-"], input=text, text=True, check=True
    )


def main() -> None:
    lvm = shutil.which("lvm")
    if lvm is None:  # then tests/lvm/run refuses to begin
        return
    functions = dict(re.findall(r" U (\w+)@(LIBSYSTEMD_\w+)$", output("nm", "-D", lvm), re.MULTILINE))
    found = re.search(rf"^\s*({re.escape(IDLE)}\S+) => (/\S+)", output("ldd", lvm), re.MULTILINE)
    if found and functions:  # not every system builds lvm with it
        make(Path(sys.argv[1]) / found[1], functions)
        print(found[1], Path(found[2]).resolve())


if __name__ == "__main__":
    main()
