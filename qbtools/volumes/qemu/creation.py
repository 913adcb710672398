"""How a new qcow2 image is created: the options of qemu-img that a user may give."""

from __future__ import annotations

from qbtools.errors import UsageError
from qbtools.lean import NamedTuple

_VALUES = {
    "preallocation": ("off", "metadata", "falloc", "full"),
    "compression_type": ("zlib", "zstd"),
    "compress": ("off", "on"),
}
_CLUSTER = 1 << 16
_UNITS = {"k": 10, "K": 10, "M": 20}
KEYS = ("cluster_size", *_VALUES)


class Creation(NamedTuple):
    """cluster: bytes. settings: for `qemu-img create -o`. compress: the data is written compressed."""

    cluster: int
    settings: str
    compress: bool
    whole: bool
    """The image has room for all its bytes from the beginning."""


def split(word: str) -> tuple[str, str]:
    """Path and options of `PATH,KEY=VALUE,…`. Only known keys count: a path may have commas."""
    path, options = word, ""
    while True:
        rest, comma, last = path.rpartition(",")
        if not comma or not rest or last.partition("=")[0] not in KEYS or "=" not in last:
            return path, options
        path, options = rest, f"{last},{options}" if options else last


def parse(options: str) -> Creation:
    """The options `KEY=VALUE,…`. UsageError for an unknown key or value, and for those that exclude each other."""
    given: dict[str, str] = {}
    for option in options.split(",") if options else []:
        key, equal, value = option.partition("=")
        if key not in KEYS or not equal:
            raise UsageError(f"{option} is not an option of a qcow2 image", f"the options are {', '.join(KEYS)}")
        if key in given:
            raise UsageError(f"the option {key} is given twice")
        if key in _VALUES and value not in _VALUES[key]:
            raise UsageError(f"{option}: {key} is one of {', '.join(_VALUES[key])}")
        given[key] = value
    cluster = _size(given["cluster_size"]) if "cluster_size" in given else _CLUSTER
    compress = given.pop("compress", "off") == "on"
    room = given.get("preallocation", "off")
    if compress and room != "off":
        raise UsageError(f"compress=on does not go with preallocation={room}")
    return Creation(
        cluster, ",".join(f"{key}={value}" for key, value in given.items()), compress, room in ("falloc", "full")
    )


def _size(text: str) -> int:
    digits, unit = (text[:-1], _UNITS[text[-1]]) if text[-1:] in _UNITS else (text, 0)
    size = int(digits) << unit if digits.isascii() and digits.isdecimal() and len(digits) < 10 else 0
    if not 1 << 9 <= size <= 1 << 21 or size & (size - 1):
        raise UsageError(f"cluster_size={text} is not a power of two between 512 and 2M")
    return size
