"""What sealer.py is told: the settings of an archive, and the files. It is known before the slow modules are loaded."""

from __future__ import annotations

from qbtools.errors import QbError
from qbtools.formats import chunks
from qbtools.formats.containerhead import Parameters
from qbtools.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from qbtools.streams import Reader


class Settings(NamedTuple):
    """The settings of all containers of an archive."""

    backup_id: str
    chunk_size: int = chunks.DEFAULT_CHUNK_SIZE
    parameters: Parameters = Parameters()
    mtime: int = 0
    """The time in every member, in seconds since 1970: when the backup began."""
    compression: str | None = None
    """The compression that every file must have; files must also be complete, as far as that can be detected. None:
    nothing is checked."""


class Lost(QbError):
    """The source of a file has failed, and the archive is completed without that file."""


class Source(NamedTuple):
    """A file to seal. open starts reading. end is called at its EOF, before the last chunk is checked or sealed.

    end raises if the data is not the complete file: its last chunk is then never written. If open or end raises Lost,
    the sealer continues with the next file.
    """

    name: str
    open: Callable[[], Reader]
    end: Callable[[], None]
