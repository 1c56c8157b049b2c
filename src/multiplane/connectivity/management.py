"""Management plane of connectivity: inventory, span by span."""

from __future__ import annotations

from collections.abc import Mapping

from multiplane.api.fabric_connectivity import QuantumPath
from multiplane.connectivity.planes import Span, SpanRecord
from multiplane.kernel.names import link_id


def inventory(
    spans: Mapping[str, Span], busy: Mapping[str, tuple[QuantumPath, str]], alarms: Mapping[str, int]
) -> tuple[SpanRecord, ...]:
    """What each span is, who uses it and how often its light was lost, in order of span."""
    records = []
    for name in sorted(spans):
        path, user = busy.get(name, (None, ""))
        records.append(
            SpanRecord(
                span=spans[name],
                path_id="" if path is None else path.path_id,
                link="" if path is None else link_id(*path.ends.sites),
                used_by=user,
                alarms=alarms.get(name, 0),
            )
        )
    return tuple(records)
