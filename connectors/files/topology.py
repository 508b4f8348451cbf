"""What depends on what, from a file: rows ``source,target``, JSON lines, or GraphML."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import networkx as nx
import polars as pl

from connectors.files.sheet import read_bytes, read_sheet, require_column
from streamad.alerting.config import IncidentsConfig
from streamad.errors import ConfigError
from streamad.paging.incidents.topology import MAX_EDGES, MAX_NAME_CHARS, Topology

MAX_BYTES: Final = 64 * 2**20
_XML, _BOM = b"<", b"\xef\xbb\xbf"
_DOCTYPE: Final = (b"<!DOCTYPE", b"<!ENTITY")


def read_topology(path: str | Path, *, distance: int = 2) -> Topology:
    """Read a topology: each row, line or edge reads "source depends on target".

    path : delimited text, JSON lines or any table that has the columns ``source`` and ``target``
        (others are passed over), or GraphML, whose nodes are named by ``label`` or ``name`` where
        they have it, and else by their id
    distance : steps at which entities are linked, see `Topology`

    Raises
    ------
    ConfigError
        where the file is missing, too large, or holds something else
    SourceUnavailableError
        where it is damaged
    """
    path = Path(path)
    raw = read_bytes(path)
    if len(raw) > MAX_BYTES:
        msg = f"{path.name}: has {len(raw)} bytes; a topology has at most {MAX_BYTES // 2**20} MiB"
        raise ConfigError(msg)
    is_xml = raw.removeprefix(_BOM).lstrip().startswith(_XML)
    edges = list(_of_graphml(path, raw) if is_xml else _of_table(path))
    if not edges:
        msg = f"{path.name}: holds no edge; expected rows such as web,db (web depends on db)"
        raise ConfigError(msg)
    try:
        return Topology(edges, distance=distance)
    except ConfigError as error:
        msg = f"{path.name}: {error}"
        raise ConfigError(msg) from None


def topology_of(config: IncidentsConfig) -> Topology | None:
    """Return the topology that ``incidents.topology`` names, None where it names none."""
    if config.topology is None:
        return None
    return read_topology(config.topology, distance=config.distance)


def _of_table(path: Path) -> Iterator[tuple[str, str]]:
    frame = read_sheet(path).frame
    for name in ("source", "target"):
        require_column(frame, name, path.name)
    if frame.height > MAX_EDGES:
        msg = f"{path.name}: has {frame.height} rows; a topology has at most {MAX_EDGES}"
        raise ConfigError(msg)
    pairs = frame.select(pl.col("source", "target").cast(pl.String).str.strip_chars())
    for row, (source, target) in enumerate(pairs.iter_rows(), start=1):
        yield _named(path, source, f"row {row}"), _named(path, target, f"row {row}")


def _of_graphml(path: Path, raw: bytes) -> Iterator[tuple[str, str]]:
    if any(word in raw.upper() for word in _DOCTYPE):
        msg = f"{path.name}: declares a document type; GraphML needs none, take that line out"
        raise ConfigError(msg)
    try:
        graph = nx.read_graphml(io.BytesIO(raw))
    except Exception as error:
        # The parser, and networkx behind it, raise a dozen kinds of errors on what is no GraphML.
        reason = str(error).partition("\n")[0]
        msg = f"{path.name}: is no GraphML ({type(error).__name__}: {reason:.100})"
        raise ConfigError(msg) from error
    if not graph.is_directed():
        msg = (
            f'{path.name}: its edges have no direction; set edgedefault="directed", each edge from '
            "what depends to what it depends on"
        )
        raise ConfigError(msg)
    names = {
        node: str(of.get("label") or of.get("name") or node) for node, of in graph.nodes.data()
    }
    for source, target in graph.edges():
        at = f"edge {source!r:.40}"
        yield _named(path, names[source], at), _named(path, names[target], at)


def _named(path: Path, name: str | None, at: str) -> str:
    if not name or len(name) > MAX_NAME_CHARS:
        msg = (
            f"{path.name}: {at}: expected names of 1 to {MAX_NAME_CHARS} characters as source and "
            f"target, got {name!r:.60}"
        )
        raise ConfigError(msg)
    return name
