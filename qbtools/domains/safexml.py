"""Parses untrusted XML to a tree, within bounds: no DTD, no entity, limited size, depth and count.

Authenticated metadata is still untrusted text. Only the standard library's expat is used. Writes a tree, too.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, TreeBuilder, tostring
from xml.parsers import expat

from qbtools.errors import Damaged
from qbtools.streams import BLOCK, Reader

MAX_SIZE = 64 << 20
"""The most bytes of a document."""

MAX_TEXT = 1 << 20
"""The most characters of an attribute, or of the text in an element up to the next tag."""

MAX_DEPTH = 32
"""The most levels of nested elements; a qubes.xml has six."""

MAX_PARTS = 1 << 19
"""The most elements and attributes of a document, some 200 MiB as a tree; a domain of Qubes OS has about 100."""


def load(reader: Reader) -> Element:
    """Reads a document up to EOF; errors as parse, and Failed on an I/O error."""
    data = bytearray()
    while part := reader.read_some(BLOCK):
        data += part
        if len(data) > MAX_SIZE:
            break
    return parse(data)


def parse(data: bytes | bytearray, depth: int = MAX_DEPTH) -> Element:
    """The root of the document, which is read as UTF-8 whatever encoding it declares. Comments are dropped.

    depth: the most levels of nested elements. Damaged if it is not well-formed, has a document type or an entity
    declaration, or exceeds the bounds above.
    """
    if len(data) > MAX_SIZE:
        raise Damaged(f"the metadata has more than {MAX_SIZE} bytes")
    if not data or data.isspace():
        raise Damaged("the metadata is empty")
    if b"\0" in data:  # expat would accept the byte order mark of UTF-16
        raise Damaged("the metadata is not UTF-8 text")
    # expat reads all attributes of an element before the first call. A text full of equals signs is refused too.
    if data.count(b"=") > MAX_PARTS:
        raise _too_many()
    parser = expat.ParserCreate("utf-8")
    tree = _Bounded(depth)
    parser.buffer_text = True
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.EntityDeclHandler = _refuse_entity
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        text = expat.ErrorString(error.code)
        raise Damaged(f"the metadata is not well-formed: line {error.lineno}: {text}") from error
    return tree.builder.close()


class _Bounded:
    """Builds a tree from the calls of expat, and counts its parts."""

    def __init__(self, max_depth: int) -> None:
        self.builder = TreeBuilder()
        self._max_depth = max_depth
        self._depth = 0
        self._parts = 0
        self._text = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._parts += 1 + len(attributes)
        self._text = 0
        if self._depth > self._max_depth:
            raise Damaged(f"the metadata has elements nested more than {self._max_depth} deep")
        if self._parts > MAX_PARTS:
            raise _too_many()
        for value in attributes.values():
            if len(value) > MAX_TEXT:
                raise Damaged(f"the metadata has an attribute of more than {MAX_TEXT} characters")
        self.builder.start(name, attributes)

    def end(self, name: str) -> None:
        self._depth -= 1
        self._text = 0
        self.builder.end(name)

    def data(self, text: str) -> None:
        self._text += len(text)
        if self._text > MAX_TEXT:
            raise Damaged(f"the metadata has a text of more than {MAX_TEXT} characters")
        self.builder.data(text)


def _too_many() -> Damaged:
    return Damaged(f"the metadata has more than {MAX_PARTS} elements and attributes")


def _refuse_doctype(_name: str, _system: str | None, _public: str | None, _internal: bool) -> None:
    raise Damaged("the metadata has a document type declaration, which is not allowed")


def _refuse_entity(*_: object) -> None:
    raise Damaged("the metadata declares an entity, which is not allowed")


def parts(root: Element) -> int:
    """The number of elements and attributes, as parse() counts them."""
    return sum(1 + len(element.attrib) for element in root.iter())


def child(parent: Element, tag: str) -> Element:
    """The first child with that name, created if missing."""
    found = parent.find(tag)
    return SubElement(parent, tag) if found is None else found


def serialise(root: Element) -> bytes:
    """The document as UTF-8 with a newline at its end; parse() gives the same tree."""
    # A carriage return in a text must be a reference, because otherwise it would be read as a newline.
    return f"{tostring(root, encoding='unicode')}\n".replace("\r", "&#13;").encode()
