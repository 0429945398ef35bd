"""The same work as one writes it by hand with pandas and numpy: what benchmarks/features.py
measures us against.

Recursive averages begin in another way than TA-Lib's, so that the first values differ; some hundred
bars later they are the same. A frame has the columns of the files: timestamp, open, high, low,
close, volume.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from numpy.typing import NDArray

from ktrdr.data.bars import Bars

Array = NDArray[np.float64]
Frame = Any  # pandas has no types
Series = Any


def frame_of(bars: Bars) -> Frame:
    names = ("open", "high", "low", "close", "volume")
    stamps = pd.to_datetime(bars.timestamps, unit="us", utc=True)
    return pd.DataFrame({"timestamp": stamps, **{name: getattr(bars, name) for name in names}})


def indicators() -> dict[str, Callable[[Frame], object]]:
    """By the grammar's type, with its default parameters, all outputs."""
    return {
        "sma": lambda f: f.close.rolling(20).mean(),
        "ema": lambda f: f.close.ewm(span=20, adjust=False).mean(),
        "dema": _dema,
        "roc": lambda f: 100 * f.close.pct_change(10),
        "momentum": lambda f: f.close.diff(10),
        "rsi": _rsi,
        "macd": _macd,
        "bollingerbands": _bollinger,
        "bollingerbandwidth": _width,
        "percent_b": _percent_b,
        "zscore": lambda f: _zscore(f.close, 20),
        "percentile": lambda f: f.close.rolling(100).rank(pct=True),
        "log_return": lambda f: np.log(f.close / f.close.shift(1)),
        "realised_volatility": _realised,
        "atr": lambda f: _atr(f, 14),
        "natr": lambda f: 100 * _atr(f, 14) / f.close,
        "stochastic": _stochastic,
        "williamsr": _williams,
        "cci": _cci,
        "adx": _adx,
        "donchianchannels": lambda f: (f.high.rolling(20).max(), f.low.rolling(20).min()),
        "keltnerchannels": _keltner,
        "obv": lambda f: (np.sign(f.close.diff()).fillna(0) * f.volume).cumsum(),
        "vwap": _vwap,
        "mfi": _mfi,
        "volumeratio": lambda f: f.volume / f.volume.rolling(20).mean(),
        "hour_of_day": _hour,
    }


def inputs(frame: Frame, train_rows: range) -> NDArray[np.float32]:
    """The thirty inputs of thirty_inputs.yaml, [bars, 30]."""
    adx, _, _ = _adx(frame)
    natr = (100 * _atr(frame, 14) / frame.close).to_numpy()
    _, _, histogram = _macd(frame)
    trained = slice(train_rows.start, train_rows.stop)
    peaks = np.quantile(natr[trained], (np.arange(3) + 0.5) / 3)
    histogram = histogram.to_numpy()
    mean, deviation = histogram[trained].mean(), histogram[trained].std()
    k = _stochastic(frame)[0].to_numpy()
    sine, cosine = _hour(frame)
    columns = [
        *_trapezoids(_rsi(frame), (0, 20, 20, 40), (30, 50, 50, 70), (60, 80, 80, 100)),
        *_trapezoids(adx, (0, 0, 15, 25), (20, 35, 100, 100)),
        *_sides_and_middle(_percent_b(frame).to_numpy()),
        *_gaussians(_width(frame), (0.001, 0.001), (0.01, 0.006)),
        *(_falling(k, 20, 40), _trapezoid(k, 20, 50, 50, 80), _rising(k, 60, 80)),
        _falling(natr, peaks[0], peaks[1]),
        _trapezoid(natr, peaks[0], peaks[1], peaks[1], peaks[2]),
        _rising(natr, peaks[1], peaks[2]),
        *_trapezoids(
            100 * frame.close.pct_change(10),
            *((-2, -0.5, -0.5, 0), (-0.25, 0, 0, 0.25), (0, 0.5, 0.5, 2)),
        ),
        *_bells(_zscore(frame.close, 50), -2, 0, 2),
        *_activity((frame.volume / frame.volume.rolling(20).mean()).to_numpy()),
        *_trapezoids(
            _cci(frame), (-400, -300, -150, -50), (-150, -50, 50, 150), (50, 150, 300, 400)
        ),
        (histogram - mean) / deviation,
        sine,
        cosine,
    ]
    return np.column_stack(columns).astype(np.float32)


def triple_barrier(frame: Frame, hold: int = 50) -> NDArray[np.int64]:
    """BUY 0, HOLD 1, SELL 2 for each bar but the last `hold`: one pass over all bars for each bar
    that a label may wait."""
    opens, highs, lows, closes = (
        frame[name].to_numpy() for name in ("open", "high", "low", "close")
    )
    volatility = (_atr(frame, 50) / frame.close).to_numpy()
    count = len(frame) - hold
    entry, expected = closes[:count], volatility[:count]
    upper, lower = entry * (1 + 2.0 * expected), entry * (1 - 1.5 * expected)
    labels, open_ones = np.full(count, 1), np.ones(count, dtype=bool)
    for ahead in range(1, hold + 1):
        at = slice(ahead, count + ahead)
        above, below = highs[at] >= upper, lows[at] <= lower
        direction = np.sign(closes[at] - opens[at])
        met = np.where(above & below, 1 - direction, np.where(above, 0, 2))
        news = open_ones & (above | below)
        labels[news] = met[news]
        open_ones &= ~news
    returns = closes[hold : count + hold] / entry - 1
    late = open_ones & (np.abs(returns) >= expected * np.sqrt(hold) * 0.5)
    labels[late] = 1 - np.sign(returns[late])
    return labels


def read_csv(path: Path) -> Frame:
    """A file of bars, with the checks that an import makes."""
    frame = pd.read_csv(path)
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], utc=True, format="ISO8601")
    numbers = frame[["open", "high", "low", "close", "volume"]].to_numpy()
    assert np.isfinite(numbers).all()
    assert (numbers[:, :4] > 0).all()
    assert (numbers[:, 4] >= 0).all()
    assert (frame.high >= frame[["open", "close"]].max(axis=1)).all()
    assert (frame.low <= frame[["open", "close"]].min(axis=1)).all()
    assert frame["timestamp"].is_monotonic_increasing
    assert frame["timestamp"].is_unique
    assert (frame["timestamp"].diff().dropna() >= pd.Timedelta(minutes=1)).all()
    return frame


def _wilder(values: Series, period: int) -> Series:
    return values.ewm(alpha=1 / period, adjust=False).mean()


def _dema(f: Frame) -> Series:
    once = f.close.ewm(span=20, adjust=False).mean()
    return 2 * once - once.ewm(span=20, adjust=False).mean()


def _rsi(f: Frame) -> Series:
    moves = f.close.diff()
    gains, losses = _wilder(moves.clip(lower=0), 14), _wilder(-moves.clip(upper=0), 14)
    return (100 * gains / (gains + losses)).fillna(0)


def _macd(f: Frame) -> tuple[Series, Series, Series]:
    fast, slow = (f.close.ewm(span=span, adjust=False).mean() for span in (12, 26))
    line = fast - slow
    signal = line.ewm(span=9, adjust=False).mean()
    return line, signal, line - signal


def _bollinger(f: Frame) -> tuple[Series, Series, Series]:
    window = f.close.rolling(20)
    middle, reach = window.mean(), 2 * window.std(ddof=0)
    return middle + reach, middle, middle - reach


def _width(f: Frame) -> Series:
    upper, middle, lower = _bollinger(f)
    return (upper - lower) / middle


def _percent_b(f: Frame) -> Series:
    upper, _, lower = _bollinger(f)
    return ((f.close - lower) / (upper - lower)).fillna(0.5)


def _zscore(values: Series, period: int) -> Series:
    window = values.rolling(period)
    return ((values - window.mean()) / window.std(ddof=0)).fillna(0)


def _realised(f: Frame) -> Series:
    returns = np.log(f.close / f.close.shift(1))
    return np.sqrt((returns * returns).rolling(20).sum())


def _true_range(f: Frame) -> Array:
    high, low, before = f.high.to_numpy(), f.low.to_numpy(), f.close.shift(1).to_numpy()
    reach = np.fmax(np.abs(high - before), np.abs(low - before))
    found: Array = np.fmax(high - low, reach)
    return found


def _atr(f: Frame, period: int) -> Series:
    return _wilder(pd.Series(_true_range(f)), period)


def _stochastic(f: Frame) -> tuple[Series, Series]:
    low, high = f.low.rolling(14).min(), f.high.rolling(14).max()
    k = (100 * (f.close - low) / (high - low)).fillna(0).rolling(3).mean()
    return k, k.rolling(3).mean()


def _williams(f: Frame) -> Series:
    high = f.high.rolling(14).max()
    return -100 * (high - f.close) / (high - f.low.rolling(14).min())


def _cci(f: Frame) -> Series:
    """Mean absolute deviations window by window, without a Python call for each."""
    typical = ((f.high + f.low + f.close) / 3).to_numpy()
    mean = pd.Series(typical).rolling(20).mean().to_numpy()
    deviation = np.zeros(len(typical))
    for back in range(20):
        deviation[back:] += np.abs(typical[: len(typical) - back] - mean[back:])
    spread = 0.015 * deviation / 20
    return pd.Series(np.divide(typical - mean, spread, out=mean * 0, where=spread != 0))


def _adx(f: Frame) -> tuple[Series, Series, Series]:
    up, down = f.high.diff(), -f.low.diff()
    plus = up.where((up > down) & (up > 0), 0.0)
    minus = down.where((down > up) & (down > 0), 0.0)
    ranges = _atr(f, 14)
    above, below = 100 * _wilder(plus, 14) / ranges, 100 * _wilder(minus, 14) / ranges
    return _wilder(100 * (above - below).abs() / (above + below), 14), above, below


def _keltner(f: Frame) -> tuple[Series, Series, Series]:
    middle, reach = f.close.ewm(span=20, adjust=False).mean(), 2 * _atr(f, 10)
    return middle + reach, middle, middle - reach


def _vwap(f: Frame) -> Series:
    typical = (f.high + f.low + f.close) / 3
    return (typical * f.volume).rolling(20).sum() / f.volume.rolling(20).sum()


def _mfi(f: Frame) -> Series:
    typical = (f.high + f.low + f.close) / 3
    flow, moves = typical * f.volume, typical.diff()
    gains = flow.where(moves > 0, 0.0).rolling(14).sum()
    losses = flow.where(moves < 0, 0.0).rolling(14).sum()
    return 100 * gains / (gains + losses)


def _hour(f: Frame) -> tuple[Array, Array]:
    clock = f.timestamp.dt
    angles = 2 * np.pi * (clock.hour + clock.minute / 60).to_numpy() / 24
    return np.sin(angles), np.cos(angles)


def _falling(values: Array, top: float, foot: float) -> Array:
    return np.clip((foot - values) / (foot - top), 0, 1)


def _rising(values: Array, foot: float, top: float) -> Array:
    return np.clip((values - foot) / (top - foot), 0, 1)


def _trapezoid(values: Array, left: float, top_left: float, top_right: float, foot: float) -> Array:
    rise = (values >= left) * 1.0 if top_left == left else _rising(values, left, top_left)
    fall = (values <= foot) * 1.0 if foot == top_right else _falling(values, top_right, foot)
    return np.minimum(rise, fall)


def _trapezoids(values: Series, *corners: tuple[float, float, float, float]) -> list[Array]:
    return [_trapezoid(values.to_numpy(), *each) for each in corners]


def _gaussians(values: Series, *curves: tuple[float, float]) -> list[Array]:
    return [np.exp(-0.5 * ((values.to_numpy() - mean) / sigma) ** 2) for mean, sigma in curves]


def _bells(values: Series, *centres: float) -> list[Array]:
    return [1 / (1 + np.abs(values.to_numpy() - centre) ** 4.0) for centre in centres]


def _sides_and_middle(place: Array) -> list[Array]:
    low, high = (1 / (1 + np.exp(-slope * (place - at))) for at, slope in ((0.2, -12), (0.8, 12)))
    return [low, _trapezoid(place, 0.2, 0.5, 0.5, 0.8), high]


def _activity(ratio: Array) -> list[Array]:
    return [np.exp(-0.5 * ((ratio - 0.3) / 0.3) ** 2), _rising(ratio, 1, 3)]
