"""The picture of a comparison, where the extra `[study]` is installed: a line for each way, four figures."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

if TYPE_CHECKING:
    from multiplane.assembly.comparing.compare import Estimate, Row

_WIDTH_INCHES: Final = 13.5
_ROW_INCHES: Final = 0.44
_MARGIN_INCHES: Final = 2.2
_FOOT_CHARS: Final = 220
_SMALL: Final = 7.5
_COLOURS: Final = {"reactive": "#2b6cb0", "proactive": "#dd6b20"}


class _Panel(NamedTuple):
    """A figure of all ways. Args: late: the figure that a thin line leads to."""

    title: str
    field: str
    unit_ratio: float = 1.0
    late: str = ""
    logarithmic: bool = False


_PANELS: Final = (
    _Panel("served [%]", "served_share", 0.01),
    _Panel("wait [ms], mean and 95th percentile", "wait_s", 1e-3, "late_s", logarithmic=True),
    _Panel("fidelity of served pairs", "fidelity"),
    _Panel("control messages per pair", "messages_per_pair"),
)


def picture(rows: Sequence[Row], title: str, foot: str) -> bytes:
    """A PNG: the quickest way on top, means with 95 % confidence intervals."""
    rows = sorted(rows, key=lambda row: (-row.served_share.mean_value, row.wait_s.mean_value))
    figure = Figure(
        figsize=(_WIDTH_INCHES, _MARGIN_INCHES + _ROW_INCHES * len(rows)),
        layout="constrained",
        facecolor="white",
    )
    panels: Any = figure.subplots(1, len(_PANELS), sharey=True)
    for axes, panel in zip(panels, _PANELS, strict=True):
        _draw(axes, panel, rows)
    panels[0].set_yticks(range(len(rows)), [_name(row) for row in rows], fontsize=_SMALL)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.suptitle(title, x=0.01, ha="left", fontsize="large", fontweight="bold")
    figure.legend(handles=_legend(), loc="outside upper right", ncols=4, frameon=False, fontsize="small")
    figure.supxlabel(
        "\n".join(textwrap.wrap(foot, _FOOT_CHARS)), x=0.01, ha="left", fontsize=_SMALL, color="0.35"
    )
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120, metadata={"Software": None})
    return png.getvalue()


def _draw(axes: Any, panel: _Panel, rows: Sequence[Row]) -> None:
    for place, row in enumerate(rows):
        found: Estimate = getattr(row, panel.field)
        start, *rest = row.way.split("-")
        colour, mean = _COLOURS[start], found.mean_value / panel.unit_ratio
        if panel.late:
            late = getattr(row, panel.late).mean_value / panel.unit_ratio
            axes.plot([mean, late], [place, place], color=colour, linewidth=0.8, alpha=0.5)
            axes.plot([late], [place], marker="|", color=colour, markersize=7)
        axes.errorbar(
            [mean],
            [place],
            xerr=[found.half_value / panel.unit_ratio],
            fmt="o" if rest[-1] == "asynchronous" else "s",
            color=colour,
            markerfacecolor=colour if rest[0] == "connections" else "white",
            markersize=6,
            capsize=3,
        )
    axes.set_title(panel.title, fontsize="small", loc="left")
    if panel.logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.12)
    if panel.field == "served_share":
        axes.set_xlim(0.0, 105.0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    for place in range(0, len(rows), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="0.96", zorder=0)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize="small")
    axes.spines[["top", "right", "left"]].set_visible(False)


def _name(row: Row) -> str:
    """The four answers; under them the paper whose way is nearest."""
    answers = row.way.replace("-", " \u00b7 ")
    return f"{answers}\n{row.baseline}" if row.baseline else answers


def _legend() -> list[Line2D]:
    def mark(label: str, colour: str, shape: str = "o", fill: str | None = None) -> Line2D:
        return Line2D(
            [], [], color=colour, marker=shape, linestyle="", markerfacecolor=fill or colour, label=label
        )

    return [
        *(mark(name, colour) for name, colour in _COLOURS.items()),
        mark("full: connections, hollow: connectionless", "0.4", fill="white"),
        mark("square: synchronous", "0.4", "s"),
    ]
