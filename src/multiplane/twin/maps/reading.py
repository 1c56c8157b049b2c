"""Any map, whatever its format: the content decides which reader reads it."""

from __future__ import annotations

from typing import Final

from multiplane.twin.maps import gnpy, graphml, json_text, qnet
from multiplane.twin.maps.value import Map, MapError

MAX_BYTES: Final = 16 * 1024 * 1024
FORMATS: Final = "qnet-topology/1, GraphML or GNPy JSON"


def read(data: bytes, source: str) -> Map:
    """The map in a file.

    Args: data: content of the file, at most MAX_BYTES; source: its name, for errors.
    Raises: MapError.
    """
    if len(data) > MAX_BYTES:
        raise MapError(source, "", f"more than {MAX_BYTES // 1024**2} MiB, expected a map")
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"<":
        return graphml.read(data.removeprefix(b"\xef\xbb\xbf"), source)
    if start != b"{":
        raise MapError(source, "", f"neither JSON nor XML, expected {FORMATS}", 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise MapError(
            source, "", f"byte {data[error.start]:#04x} is not UTF-8, expected UTF-8", line
        ) from None
    document = json_text.load(text, source)
    if isinstance(document.get("format"), str):
        return qnet.read(document, source)
    if "elements" in document and "connections" in document:
        return gnpy.read(document, source)
    raise MapError(source, "", f"a JSON object of unknown form, expected {FORMATS}")
