"""Parameters fitted to training values: `auto` memberships, and scalers of raw inputs.

Everything here is a pure function of the values it is given, whatever their memory layout, and is
stored with the model: the values of other splits are never seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from ktrdr.data.bars import FloatArray
from ktrdr.errors import InvalidData
from ktrdr.strategy.memberships import LARGEST, Membership, Shape

ScalerKind = Literal["minmax", "zscore", "robust", "none"]

# A spread of so many last bits of the largest value is rounding noise, not variation.
_NOISE = 8 * float(np.finfo(np.float64).eps)
_LEAST_SPREAD = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Scaler:
    """(x - centre) / scale, fitted to training values; its JSON round-trips exactly."""

    kind: ScalerKind
    centre: float
    scale: float

    def apply(self, values: FloatArray) -> FloatArray:
        """float64 of the same shape; NaN stays NaN, and what leaves the numbers is infinite."""
        if self.kind == "none":
            return values
        with np.errstate(over="ignore"):
            scaled: FloatArray = (values - self.centre) / self.scale
        return scaled

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Scaler:
        """Raises KeyError, TypeError or ValueError for what `as_json` did not write."""
        kind, centre, scale = content["kind"], float(content["centre"]), float(content["scale"])
        if kind not in get_args(ScalerKind) or not scale > 0:
            raise ValueError(f"no scaler: {dict(content)}")
        return Scaler(kind, centre, scale)


def place_memberships(values: FloatArray, count: int, what: str) -> tuple[Membership, ...]:
    """`count` curves whose peaks are the quantiles (i + 0.5) / count of the training values.

    A left shoulder, triangles and a right shoulder: each is 0 where its neighbours peak, so that
    the grades of any value sum to 1. Quantiles interpolate linearly (numpy's "linear", definition
    7 of Hyndman and Fan 1996).

    Args:
        values: the indicator's training values, finite.
        count: at least 2.
        what: names the fuzzy set in a message.

    Raises InvalidData where two peaks would be the same.
    """
    values = _checked(values, what)
    shares = (np.arange(count) + 0.5) / count
    peaks = _quantiles(values, shares)
    _check_distinct(peaks, shares, len(values), what)
    return tuple(_curve(peaks, place) for place in range(count))


def fit_scaler(kind: ScalerKind, values: FloatArray, what: str = "a raw input") -> Scaler:
    """The scaler that brings the training values to a common scale.

    minmax to [0, 1]; zscore to mean 0 and (population) standard deviation 1; robust to median 0
    and interquartile range 1. Where the values do not spread, or an interquartile range is 0, the
    scale is 1.

    Raises InvalidData, naming `what`, where values are missing or not finite.
    """
    if kind == "none":
        return Scaler(kind, 0.0, 1.0)
    values = _checked(values, what)
    least, largest = float(values.min()), float(values.max())
    if least == largest:
        return Scaler(kind, least + 0.0, 1.0)
    centre, spread = _centre_and_spread(kind, values)
    noise = _noise(max(abs(least), abs(largest)))
    return Scaler(kind, centre + 0.0, spread if spread > noise else 1.0)


def _checked(values: FloatArray, what: str) -> FloatArray:
    """Contiguous and aligned: otherwise numpy sums in other portions, with other last bits."""
    flat = np.require(values, np.float64, ["C", "A"]).ravel()
    bad = len(flat) - int((np.abs(flat) <= LARGEST).sum())
    if not len(flat):
        raise InvalidData(f"{what}: no training values; import more bars or widen the dates")
    if bad:
        raise InvalidData(
            f"{what}: {bad:,} of its {len(flat):,} training values are no numbers between "
            f"-{LARGEST:g} and {LARGEST:g}; check the bars there",
            rows=bad,
        )
    return flat


def _quantiles(values: FloatArray, shares: FloatArray) -> FloatArray:
    """By partition, in linear time; 0.0 makes one zero of the two, which compare as equal."""
    return np.quantile(values, shares, method="linear") + 0.0


def _check_distinct(peaks: FloatArray, shares: FloatArray, rows: int, what: str) -> None:
    same = np.flatnonzero(np.diff(peaks) <= _noise(float(np.abs(peaks).max())))
    if not len(same):
        return
    count, first = len(peaks), int(same[0])
    raise InvalidData(
        f"{what}: auto: {count} needs {count} distinct quantiles, but its {rows:,} training values "
        f"have {count - len(same)}: {peaks[first]:g} stands at {shares[first]:.3g} as well as at "
        f"{shares[first + 1]:.3g}; say a smaller auto, or write the memberships out",
        rows=rows,
        distinct=count - len(same),
        needed=count,
    )


def _curve(peaks: FloatArray, place: int) -> Membership:
    """The curve of one peak: it falls to 0 where its neighbours peak."""
    around = tuple(float(peak) for peak in peaks[max(place - 1, 0) : place + 2])
    shape: Shape = "triangular"
    if place == 0:
        shape = "left_shoulder"
    elif place == len(peaks) - 1:
        shape = "right_shoulder"
    return Membership(type=shape, parameters=around)


def _centre_and_spread(kind: ScalerKind, values: FloatArray) -> tuple[float, float]:
    if kind == "minmax":
        return float(values.min()), float(values.max() - values.min())
    if kind == "robust":
        lower, median, upper = _quantiles(values, np.array([0.25, 0.5, 0.75])).tolist()
        return median, upper - lower
    mean = float(values.mean())
    distances = np.abs(values - mean)
    farthest = float(distances.max())  # taken out, lest a square leaves the numbers
    return mean, farthest * float(np.sqrt(np.square(distances / farthest).mean()))


def _noise(largest: float) -> float:
    """The spread that rounding alone can give values of this size."""
    return max(_NOISE * largest, _LEAST_SPREAD)
