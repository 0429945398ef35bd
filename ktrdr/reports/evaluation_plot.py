"""The plot of an evaluation: reliability diagram and equity curve."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktrdr.reports.plots import write_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ktrdr.inference.evaluation import Evaluation
    from ktrdr.inference.evaluation.trading import Equity

_MOST_POINTS = 4000
_PANEL_INCHES = (5.0, 3.6)


def draw_evaluation(evaluation: Evaluation, path: Path) -> None:
    """A reliability diagram, where there are classes, beside the equity curves.

    Raises OutputLost where the file cannot be written.
    """
    bins, equity = evaluation.document["overall"]["metrics"]["calibration"], evaluation.equity
    figure, panels = _figure((bins is not None) + (equity is not None))
    figure.suptitle(evaluation.document["model"], fontsize="medium")
    if equity is not None:
        _draw_equity(panels[-1], equity)
    if bins is not None:
        _draw_reliability(panels[0], bins)
    write_png(figure, path)


def _figure(num_panels: int) -> tuple[Figure, list[Axes]]:
    """A figure of its own, without pyplot: no window, no state of the process."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of its font cache
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = max(num_panels, 1)
    figure = Figure(figsize=(_PANEL_INCHES[0] * across, _PANEL_INCHES[1]), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, across, squeeze=False).flat)


def _draw_reliability(panel: Axes, bins: list[dict[str, Any]]) -> None:
    filled = [one for one in bins if one["rows"]]
    most = max(one["rows"] for one in filled)
    panel.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    panel.bar(
        [one["above"] for one in filled],
        [one["rows"] / most for one in filled],
        width=bins[0]["up_to"],
        align="edge",
        color="lightgrey",
        label=f"rows (most: {most:,})",
    )
    confidences = [one["confidence"] for one in filled]
    panel.plot(confidences, [one["accuracy"] for one in filled], "o-", label="accuracy")
    panel.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", title="reliability")
    panel.legend(fontsize="x-small")


def _draw_equity(panel: Axes, equity: Equity) -> None:
    import numpy as np

    step = math.ceil(len(equity.timestamps) / _MOST_POINTS)
    stamps = equity.timestamps[::step].astype("datetime64[us]")
    for label, curve in (
        ("model", equity.gross),
        ("model after costs", equity.net),
        ("buy and hold", equity.held),
    ):
        panel.plot(stamps, np.asarray(curve[::step]), label=label, linewidth=1.0)
    panel.set(title="equity (start = 1)")
    panel.tick_params(axis="x", labelrotation=30, labelsize="x-small")
    panel.legend(fontsize="x-small")
