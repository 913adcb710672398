"""The run that makes one full archive of the last state of a chain."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence

from qbtools.domains import inventory, safexml
from qbtools.domains.inventory import Entry
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Failed
from qbtools.formats import chain
from qbtools.formats.chain import Link
from qbtools.formats.chunks import METADATA
from qbtools.runs import verdict
from qbtools.runs.chaining import Streams
from qbtools.runs.hearing import Happened
from qbtools.runs.wiring import Wiring
from qbtools.streams import Reader


class Merging:
    """Handles the reports of the stages, and tells qb-seal what is in the new archive."""

    def __init__(self, wiring: Wiring, links: Sequence[Link], streams: Streams, warn: Callable[[str], None]) -> None:
        """streams: all archives have a pipe. warn: as Metadata()."""
        self._wiring = wiring
        self._links = links
        self._streams = streams
        self._warn = warn
        self._begun = False
        self._ended = 0
        self._complete = False

    def run(self) -> None:
        """Runs the stages until the archive is complete. Errors as verdict.judge()."""
        with self._wiring:
            statuses, failures = self._wiring.run(self._happened)
        verdict.judge(statuses, failures)
        if not self._complete:
            raise Failed("the archive was not completed, although all stages succeeded")

    def _happened(self, event: Happened) -> None:
        if not self._begun and event.event == "done" and event.name == METADATA:
            self._begin(event.data)
        elif not self._begun and event.event == "first":
            self._begin(None)
        elif event.event == "ended":
            self._ended += 1
            if self._ended == len(self._links):  # nothing that was read is damaged: the new archive may be completed
                self._wiring.tell_all("complete\n")
        elif event.event == "complete":
            self._complete = True

    def _begin(self, document: bytes | None) -> None:
        """document: the metadata of the last archive, None if it has none."""
        self._begun = True
        entries: dict[str, Entry] | None = None
        if document is not None:
            metadata = Metadata(safexml.load(Reader(io.BytesIO(document), METADATA)), self._warn)
            entries = {entry.archive_name: entry for entry in inventory.entries(metadata)}
        lines = [self._line(name, entries) for name in self._links[-1].records if name != METADATA]
        if document is not None:
            lines.insert(0, f"{METADATA}\tinline:{len(document)}\n")
        self._streams.send()
        self._wiring.tell(os.fsencode("".join([*lines, "end\n"])) + (document or b""))

    def _line(self, name: str, entries: dict[str, Entry] | None) -> str:
        """The line of a file for qb-seal. entries: of the metadata, by archive name; None if there is none.

        A file that is no volume has no increments. Nor has a volume that the archive before does not have.
        """
        entry = None if entries is None else entries.get(name)
        volume = entries is None or (entry is not None and entry.volume is not None and not name.endswith("/."))
        if volume and len(chain.parts(self._links, name)) > 1:
            source = f"merge:{self._streams.add(name)}"
        else:
            source = f"pass:{self._streams.add_whole(name)}"
        return f"{name}\t{'' if entry is None else f'as:{entry.label}='}{source}\n"
