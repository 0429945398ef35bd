"""Plots; matplotlib is loaded only when one is drawn."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ktrdr.errors import OutputLost, Usage
from ktrdr.files import replacement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ktrdr.inference.rules import FuzzyInput
    from ktrdr.strategy.memberships import Membership

_PANELS_ACROSS = 3
_PANEL_INCHES = (4.2, 2.8)
_POINTS = 801


def png_path(value: str) -> Path:
    """The file that `--plot` names; Usage unless a PNG can be written there."""
    path = Path(value)
    if os.path.isdir(path):  # unlike Path.is_dir, False where it may not be looked at
        raise Usage(f"--plot {value!r} is a folder: name a file in it, such as plot.png")
    if path.suffix.lower() != ".png":
        raise Usage(f"--plot {value!r} is no PNG: name a file that ends in .png")
    if not os.path.isdir(path.parent):
        raise Usage(f"--plot {value!r}: there is no folder {str(path.parent)!r}: make it first")
    return path


def draw_memberships(inputs: Sequence[FuzzyInput], path: Path) -> None:
    """A panel for each input: its memberships after training, and, dashed, before it."""
    figure, panels = _figure(len(inputs))
    for panel, fuzzy_input in zip(panels, inputs, strict=True):
        _draw_input(panel, fuzzy_input)
    figure.supxlabel("dashed: before training; solid: after it", fontsize="small")
    write_png(figure, path)


def write_png(figure: Figure, path: Path) -> None:
    """Write whole or not at all; what was there before is replaced. Raises OutputLost."""
    try:
        with replacement(path) as file:
            figure.savefig(file, format="png")
    except OSError as error:
        reason = error.strerror or error
        raise OutputLost(f"cannot write the plot to {path}: {reason}") from None


def _figure(num_panels: int) -> tuple[Figure, list[Axes]]:
    """A figure of its own, without pyplot: no window, no state of the process."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of its font cache
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = min(num_panels, _PANELS_ACROSS)
    down = math.ceil(num_panels / across)
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * across, height * down), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for unused in panels[num_panels:]:
        unused.set_visible(False)
    return figure, panels[:num_panels]


def _draw_input(panel: Axes, fuzzy_input: FuzzyInput) -> None:
    import numpy as np

    from ktrdr.features.memberships import grade

    both = [curve for moved in fuzzy_input.curves for curve in (moved.before, moved.after)]
    low, high = zip(*map(_extent, both), strict=True)
    values = np.linspace(min(low), max(high), _POINTS)
    for index, moved in enumerate(fuzzy_input.curves):
        colour = f"C{index % 10}"
        panel.plot(values, grade(moved.before, values), color=colour, linestyle="--", alpha=0.6)
        panel.plot(values, grade(moved.after, values), color=colour, label=moved.name)
    panel.set_title(fuzzy_input.name, fontsize="medium")
    panel.set_ylim(-0.05, 1.05)
    panel.legend(fontsize="x-small")


def _extent(curve: Membership) -> tuple[float, float]:
    """Where a curve changes."""
    numbers = curve.parameters
    if curve.type == "gaussian":
        centre, reach = numbers[0], 3.0 * numbers[1]
    elif curve.type == "bell":
        centre, reach = numbers[2], 3.0 * numbers[0]
    elif curve.type == "sigmoid":
        centre, reach = numbers[0], 6.0 / abs(numbers[1])
    else:
        return numbers[0], numbers[-1]
    return centre - reach, centre + reach
