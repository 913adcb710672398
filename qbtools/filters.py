"""Compression by other programs: which program is used, and what its exit status means.

A program works on our descriptors; no byte passes through this module. Data after a compressed stream is skipped:
some programs skip it themselves, gzip warns of it, pigz and igzip leave it unread. If a program reports it as an
error, this module does too.
"""

from __future__ import annotations

import io
import os

from qbtools import programs
from qbtools.errors import Damaged, Failed, UsageError
from qbtools.lean import TYPE_CHECKING, suppress
from qbtools.streams import Reader, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Note = Callable[[str], None]
    _Calls = Mapping[str, Sequence[Sequence[str]]]

# The programs for each filter, the fastest first. gzip gets no -q: with -q it ends with status 2 instead of SIGPIPE
# when its reader has ended.
_COMPRESS: _Calls = {
    "gzip": (("igzip", "-1", "-c"), ("pigz", "-cq"), ("gzip", "-c")),
    "bzip2": (("bzip2", "-cq"),),
    "xz": (("xz", "-cq"),),
    "zstd": (("zstd", "-cq"),),
    "none": (),
}
# The stream decides how much memory its decompressor needs: xz -9 and zstd --ultra -22 are within the limit.
_DECOMPRESS: _Calls = {
    "gzip": (("igzip", "-dc"), ("pigz", "-dc"), ("gzip", "-dc")),
    "bzip2": (("bzip2", "-dc"),),
    "xz": (("xz", "-dcq", "--memlimit-decompress=128MiB"),),
    "lzma": (("xz", "-dcq", "--memlimit-decompress=128MiB", "--format=lzma"),),
    "zstd": (("zstd", "-dcq", "--memory=128MB"),),
    "none": (),
}
_PACKAGES = {"igzip": "isal", "xz": "xz-utils"}  # the Debian package, if its name is not that of the program

_GZIP_WARNED = 2  # the only warning of a decompressing gzip is that of trailing garbage


def compress(name: str, reader: Reader, writer: Writer, note: Note) -> None:
    """Compresses the rest of reader, which must have a descriptor, with the filter called name.

    UsageError for an unknown filter, Failed if its program is missing or fails, BrokenPipeError if nobody reads the
    output. After an error the output ends with a text that no compressor writes.
    """
    calls = _calls(_COMPRESS, name)
    try:
        if not calls:
            reader.copy_rest(writer)
            return
        with programs.running(_argv(calls, note), reader.fd, writer.fd) as child:
            if child.wait():
                raise Failed(child.ending())
    except BrokenPipeError:
        raise
    except BaseException:
        with suppress(OSError):
            programs.spoil(writer.fd)
        raise


def decompress(name: str, reader: Reader, writer: Writer, note: Note) -> None:
    """Decompresses the rest of reader, which must have a descriptor, with the filter called name, up to its end.

    Errors as compress(); Damaged if the program fails. After an error the output ends with a text that is neither
    zeros nor a tar header, so that no reader takes the output for complete.
    """
    calls = _calls(_DECOMPRESS, name)
    try:
        if calls:
            _decompress(name, _argv(calls, note), reader, writer)
        else:
            reader.copy_rest(writer)
    except BrokenPipeError:
        raise
    except BaseException as error:
        try:
            programs.spoil(writer.fd)
        except OSError as full:
            if isinstance(error, Damaged):  # that is why the program failed
                raise Failed(f"cannot write to {writer.name}: {os.strerror(full.errno or 0)}") from error
        raise


def _decompress(name: str, argv: Sequence[str], reader: Reader, writer: Writer) -> None:
    with programs.running(argv, reader.fd, writer.fd) as child:
        code = child.wait()
        if code < 0:
            raise Failed(child.ending())
        if code and (child.name, code) != ("gzip", _GZIP_WARNED):
            raise Damaged(f"{reader.name} cannot be decompressed: {child.ending()}", _hint(name, reader))
    with io.FileIO(os.devnull, "w") as nowhere:
        reader.copy_rest(Writer(nowhere, os.devnull))


def _hint(name: str, reader: Reader) -> str | None:
    """A hint that names the right filter, if it is not name and reader is a file, in which it can be recognized."""
    from qbtools.formats import magic

    with suppress(OSError):
        found = magic.kind(os.pread(reader.fd, magic.HEAD, 0))
        if found in magic.COMPRESSIONS and found != name:
            return f"{reader.name} is {found} data: qb-decompress {found}"
    return None


def _calls(table: _Calls, name: str) -> Sequence[Sequence[str]]:
    try:
        return table[name]
    except KeyError:
        raise UsageError(f"unknown filter: {name}", f"the filters are {', '.join(table)}") from None


def _argv(calls: Sequence[Sequence[str]], note: Note) -> list[str]:
    """The command line of the first program that exists. Failed if none does."""
    for call in calls:
        path = programs.find(call[0])
        if path is not None:
            note(f"running {path} {' '.join(call[1:])}")
            return [path, *call[1:]]
    names = [call[0] for call in calls]
    packages = [_PACKAGES.get(name, name) for name in names]
    raise Failed(f"no {' or '.join(names)} in PATH", f"install the package {' or '.join(packages)}")
