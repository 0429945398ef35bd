"""Indicators in plain Python over lists, from the textbooks, to compare those of ktrdr with.

It shares no code with ktrdr and uses no TA-Lib: every window is added up anew. Sources: Wilder, New
Concepts in Technical Trading Systems, 1978 (RSI, ATR, ADX, parabolic stop); Appel (MACD, PPO);
Bollinger on Bollinger Bands, 2001; Chande and Kroll, The New Technical Trader, 1994 (CMO,
stochastic RSI); Kaufman, Trading Systems and Methods (adaptive average); Williams (ultimate
oscillator, %R); Lane (stochastic); Lambert (CCI); Hull; Mulloy (DEMA, TEMA); Chaikin; Ehlers 2002.
Where a textbook leaves a start open, it is that of TA-Lib: an average begins as the simple mean of
its first values; MACD's fast average begins where the slow one does; Wilder's sums of directional
movement begin with period - 1 bars.
"""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Callable

from ktrdr.data.bars import Bars

NAN = math.nan

Series = list[float]
Outputs = dict[str, Series]


def over_windows(values: Series, period: int, found: Callable[[Series], float]) -> Series:
    """`found` of the last `period` values at each place; NaN where one of them is missing."""
    result = [NAN] * min(period - 1, len(values))
    for end in range(period, len(values) + 1):
        part = values[end - period : end]
        result.append(NAN if any(math.isnan(v) for v in part) else found(part))
    return result


def mean(values: Series) -> float:
    return math.fsum(values) / len(values)


def deviation(values: Series) -> float:
    middle = mean(values)
    return math.sqrt(math.fsum((v - middle) ** 2 for v in values) / len(values))


def sma(values: Series, period: int) -> Series:
    return over_windows(values, period, mean)


def wma(values: Series, period: int) -> Series:
    weights = range(1, period + 1)
    return over_windows(
        values,
        period,
        lambda part: math.fsum(w * v for w, v in zip(weights, part, strict=True)) / sum(weights),
    )


def ema(values: Series, period: int, start: int | None = None) -> Series:
    """Begins at `start` (period - 1 after the first value unless given) as the mean of the
    `period` values up to it."""
    if start is None:
        start = first_value(values) + period - 1
    found = [NAN] * start
    found.append(mean(values[start - period + 1 : start + 1]))
    for value in values[start + 1 :]:
        found.append(found[-1] + (value - found[-1]) * 2 / (period + 1))
    return found


def wilder(values: Series, period: int, start: int) -> Series:
    """Wilder's average: the mean of the `period` values up to `start`, then by 1 / period."""
    found = [NAN] * start
    found.append(mean(values[start - period + 1 : start + 1]))
    for value in values[start + 1 :]:
        found.append((found[-1] * (period - 1) + value) / period)
    return found


def first_value(values: Series) -> int:
    return next(place for place, value in enumerate(values) if not math.isnan(value))


def moved(values: Series, bars: int) -> Series:
    return [NAN] * bars + values[: len(values) - bars]


def each(function: Callable[..., float], *series: Series) -> Series:
    return [
        NAN if any(math.isnan(value) for value in row) else function(*row)
        for row in zip(*series, strict=True)
    ]


def columns(bars: Bars) -> tuple[Series, Series, Series, Series, Series]:
    return (
        bars.open.tolist(),
        bars.high.tolist(),
        bars.low.tolist(),
        bars.close.tolist(),
        bars.volume.tolist(),
    )


def source_of(bars: Bars, name: str) -> Series:
    opens, highs, lows, closes, volumes = columns(bars)
    if name == "hlc3":
        return [(h + x + c) / 3 for h, x, c in zip(highs, lows, closes, strict=True)]
    return {"open": opens, "high": highs, "low": lows, "close": closes, "volume": volumes}[name]


# Averages and regression lines


def dema(source: Series, period: int) -> Series:
    once = ema(source, period)
    return each(lambda a, b: 2 * a - b, once, ema(once, period))


def tema(source: Series, period: int) -> Series:
    once = ema(source, period)
    twice = ema(once, period)
    return each(lambda a, b, c: 3 * a - 3 * b + c, once, twice, ema(twice, period))


def kama(source: Series, period: int) -> Series:
    found = [NAN] * period
    before = source[period - 1]
    for place in range(period, len(source)):
        part = source[place - period : place + 1]
        path = math.fsum(abs(b - a) for a, b in itertools.pairwise(part))
        efficiency = abs(part[-1] - part[0]) / path
        rate = (efficiency * (2 / 3 - 2 / 31) + 2 / 31) ** 2
        before += rate * (source[place] - before)
        found.append(before)
    return found


def hma(source: Series, period: int) -> Series:
    half, full = wma(source, period // 2), wma(source, period)
    return wma(each(lambda a, b: 2 * a - b, half, full), math.floor(math.sqrt(period)))


def slope(part: Series) -> float:
    """Of the least-squares line, per bar."""
    middle = (len(part) - 1) / 2
    level = mean(part)
    rise = math.fsum((x - middle) * (y - level) for x, y in enumerate(part))
    return rise / math.fsum((x - middle) ** 2 for x in range(len(part)))


def angle(part: Series) -> float:
    return math.degrees(math.atan(slope(part)))


def distance(source: Series, _: Bars, period: int, ma_type: str) -> Outputs:
    average = {"sma": sma, "ema": ema}[ma_type](source, period)
    return {"distance": each(lambda v, a: (v - a) / a * 100, source, average)}


# Momentum


def rsi_line(source: Series, period: int) -> Series:
    moves = [0.0] + [b - a for a, b in itertools.pairwise(source)]
    gains = wilder([max(m, 0.0) for m in moves], period, period)
    losses = wilder([max(-m, 0.0) for m in moves], period, period)
    return each(lambda g, x: 100 * g / (g + x), gains, losses)


def cmo(source: Series, _: Bars, period: int) -> Outputs:
    """Chande's, smoothed like Wilder's RSI."""
    return {"cmo": [2 * value - 100 for value in rsi_line(source, period)]}


def roc(source: Series, _: Bars, period: int) -> Outputs:
    return {"roc": each(lambda b, a: (b / a - 1) * 100, source, moved(source, period))}


def momentum(source: Series, _: Bars, period: int) -> Outputs:
    return {"momentum": each(lambda b, a: b - a, source, moved(source, period))}


def trix(source: Series, _: Bars, period: int) -> Outputs:
    smooth = ema(ema(ema(source, period), period), period)
    return {"trix": each(lambda b, a: (b / a - 1) * 100, smooth, moved(smooth, 1))}


def macd(
    source: Series, _: Bars, fast_period: int, slow_period: int, signal_period: int
) -> Outputs:
    fast, slow = ema(source, fast_period, slow_period - 1), ema(source, slow_period)
    line = [f - s for f, s in zip(fast, slow, strict=True)]
    signal = ema(line, signal_period)
    line = [NAN if math.isnan(s) else value for value, s in zip(line, signal, strict=True)]
    histogram = [value - s for value, s in zip(line, signal, strict=True)]
    return {"line": line, "signal": signal, "histogram": histogram}


def ppo(source: Series, _: Bars, fast_period: int, slow_period: int, signal_period: int) -> Outputs:
    line = each(lambda f, s: 100 * (f - s) / s, ema(source, fast_period), ema(source, slow_period))
    signal = ema(line, signal_period)
    return {"line": line, "signal": signal, "histogram": each(lambda a, b: a - b, line, signal)}


def in_range(value: float, low: float, high: float) -> float:
    return 100 * (value - low) / (high - low)


def stochastic_rsi(source: Series, _: Bars, period: int, k_period: int, d_period: int) -> Outputs:
    line = rsi_line(source, period)
    lows, highs = over_windows(line, k_period, min), over_windows(line, k_period, max)
    k = each(in_range, line, lows, highs)
    return {"k": k, "d": sma(k, d_period)}


def stochastic(_: Series, bars: Bars, k_period: int, d_period: int, smooth_k: int) -> Outputs:
    _, highs, lows, closes, _ = columns(bars)
    low, high = over_windows(lows, k_period, min), over_windows(highs, k_period, max)
    k = sma(each(in_range, closes, low, high), smooth_k)
    d = sma(k, d_period)
    return {"k": [NAN if math.isnan(y) else x for x, y in zip(k, d, strict=True)], "d": d}


def williams(_: Series, bars: Bars, period: int) -> Outputs:
    _, highs, lows, closes, _ = columns(bars)
    low, high = over_windows(lows, period, min), over_windows(highs, period, max)
    return {"williamsr": [value - 100 for value in each(in_range, closes, low, high)]}


def cci(_: Series, bars: Bars, period: int) -> Outputs:
    def of_window(part: Series) -> float:
        middle = mean(part)
        return (part[-1] - middle) / (0.015 * mean([abs(v - middle) for v in part]))

    return {"cci": over_windows(source_of(bars, "hlc3"), period, of_window)}


def ultimate(
    _: Series, bars: Bars, short_period: int, medium_period: int, long_period: int
) -> Outputs:
    _, highs, lows, closes, _ = columns(bars)
    pressures, ranges = [NAN], [NAN]
    for high, low, close, before in zip(highs[1:], lows[1:], closes[1:], closes[:-1], strict=True):
        pressures.append(close - min(low, before))
        ranges.append(max(high, before) - min(low, before))
    averages = [
        each(
            lambda a, b: a / b,
            over_windows(pressures, period, math.fsum),
            over_windows(ranges, period, math.fsum),
        )
        for period in (short_period, medium_period, long_period)
    ]
    return {"ultosc": each(lambda a, b, c: 100 * (4 * a + 2 * b + c) / 7, *averages)}


def vigor(_: Series, bars: Bars, period: int, signal_period: int) -> Outputs:
    opens, highs, lows, closes, _ = columns(bars)

    def weighted(values: Series) -> Series:
        return over_windows(values, 4, lambda p: (p[0] + 2 * p[1] + 2 * p[2] + p[3]) / 6)

    moves = weighted(each(lambda c, o: c - o, closes, opens))
    ranges = weighted(each(lambda h, x: h - x, highs, lows))
    line = each(lambda a, b: a / b, sma(moves, period), sma(ranges, period))
    return {"rvi": line, "signal": sma(line, signal_period)}


def fisher(_: Series, bars: Bars, period: int, smoothing: int) -> Outputs:
    _, highs, lows, _, _ = columns(bars)
    low, high = over_windows(lows, period, min), over_windows(highs, period, max)
    middles = each(lambda h, x: (h + x) / 2, highs, lows)
    places = each(lambda v, x, h: 2 * (v - x) / (h - x) - 1, middles, low, high)
    places = each(lambda x: max(min(x, 0.999), -0.999), places)
    line = ema(each(lambda x: 0.5 * math.log((1 + x) / (1 - x)), places), smoothing)
    return {"fisher": line, "signal": moved(line, 1)}


def aroon(_: Series, bars: Bars, period: int) -> Outputs:
    _, highs, lows, _, _ = columns(bars)

    def age(part: Series, wanted: float) -> float:
        return part[::-1].index(wanted)

    up = over_windows(highs, period + 1, lambda p: 100 * (period - age(p, max(p))) / period)
    down = over_windows(lows, period + 1, lambda p: 100 * (period - age(p, min(p))) / period)
    return {"up": up, "down": down, "oscillator": each(lambda a, b: a - b, up, down)}


# Trend


def true_ranges(bars: Bars) -> Series:
    highs, lows, closes = bars.high.tolist(), bars.low.tolist(), bars.close.tolist()
    return [0.0] + [
        max(high, before) - min(low, before)
        for high, low, before in zip(highs[1:], lows[1:], closes[:-1], strict=True)
    ]


def atr_line(bars: Bars, period: int) -> Series:
    return wilder(true_ranges(bars), period, period)


def wilder_sum(values: Series, period: int) -> Series:
    """Wilder's running sum: begins with `period` - 1 values, then loses 1 / period a bar."""
    found = [NAN] * (period - 1) + [sum(values[1:period])]
    for value in values[period:]:
        found.append(found[-1] - found[-1] / period + value)
    found[period - 1] = NAN
    return found


def adx(_: Series, bars: Bars, period: int) -> Outputs:
    highs, lows = bars.high.tolist(), bars.low.tolist()
    ups = [0.0] + [b - a for a, b in itertools.pairwise(highs)]
    downs = [0.0] + [a - b for a, b in itertools.pairwise(lows)]
    moves = list(zip(ups, downs, strict=True))
    plus = wilder_sum([up if up > down and up > 0 else 0.0 for up, down in moves], period)
    minus = wilder_sum([down if down > up and down > 0 else 0.0 for up, down in moves], period)
    ranges = wilder_sum(true_ranges(bars), period)
    plus_di = [100 * p / r for p, r in zip(plus, ranges, strict=True)]
    minus_di = [100 * m / r for m, r in zip(minus, ranges, strict=True)]
    spread = [100 * abs(p - m) / (p + m) for p, m in zip(plus_di, minus_di, strict=True)]
    return {
        "adx": wilder(spread, period, 2 * period - 1),
        "plus_di": plus_di,
        "minus_di": minus_di,
    }


def supertrend(_: Series, bars: Bars, period: int, multiplier: float) -> Outputs:
    """Both final bands are kept, and the direction picks one."""
    _, highs, lows, closes, _ = columns(bars)
    ranges = atr_line(bars, period)
    trend, direction = [NAN] * period, [NAN] * period
    upper = lower = NAN
    up = 1.0
    for t in range(period, len(closes)):
        middle = (highs[t] + lows[t]) / 2
        above, below = middle + multiplier * ranges[t], middle - multiplier * ranges[t]
        if math.isnan(upper) or above < upper or closes[t - 1] > upper:
            upper = above
        if math.isnan(lower) or below > lower or closes[t - 1] < lower:
            lower = below
        if up > 0 and closes[t] < lower:
            up = -1.0
        elif up < 0 and closes[t] > upper:
            up = 1.0
        trend.append(lower if up > 0 else upper)
        direction.append(up)
    return {"trend": trend, "direction": direction}


def parabolic(_: Series, bars: Bars, initial_af: float, step_af: float, max_af: float) -> Outputs:
    """Begins long unless the second bar's low falls by more than its high rises."""
    _, highs, lows, _, _ = columns(bars)
    fall, rise = lows[0] - lows[1], highs[1] - highs[0]
    long = not (fall > rise and fall > 0)
    stop = lows[0] if long else highs[0]
    extreme = highs[1] if long else lows[1]
    factor = initial_af
    found = [NAN]
    for t in range(1, len(highs)):
        before = max(t - 1, 1) if t == 1 else t - 1
        reversed_here = lows[t] <= stop if long else highs[t] >= stop
        if reversed_here:
            long = not long
            stop = extreme
            stop = min(stop, lows[before], lows[t]) if long else max(stop, highs[before], highs[t])
            found.append(stop)
            factor, extreme = initial_af, highs[t] if long else lows[t]
        else:
            found.append(stop)
            if long and highs[t] > extreme:
                extreme, factor = highs[t], min(factor + step_af, max_af)
            elif not long and lows[t] < extreme:
                extreme, factor = lows[t], min(factor + step_af, max_af)
        stop += factor * (extreme - stop)
        stop = min(stop, lows[before], lows[t]) if long else max(stop, highs[before], highs[t])
    return {"sar": found}


def ichimoku(
    _: Series,
    bars: Bars,
    tenkan_period: int,
    kijun_period: int,
    senkou_b_period: int,
    displacement: int,
) -> Outputs:
    _, highs, lows, _, _ = columns(bars)
    tenkan, kijun, far = (
        each(
            lambda a, b: (a + b) / 2,
            over_windows(highs, period, max),
            over_windows(lows, period, min),
        )
        for period in (tenkan_period, kijun_period, senkou_b_period)
    )
    near = each(lambda a, b: (a + b) / 2, tenkan, kijun)
    return {
        "tenkan": tenkan,
        "kijun": kijun,
        "senkou_a": moved(near, displacement),
        "senkou_b": moved(far, displacement),
    }


# Volatility


def bollinger(source: Series, _: Bars, period: int, multiplier: float) -> Outputs:
    middle, width = sma(source, period), over_windows(source, period, deviation)
    return {
        "upper": each(lambda m, d: m + multiplier * d, middle, width),
        "middle": middle,
        "lower": each(lambda m, d: m - multiplier * d, middle, width),
    }


def band_width(source: Series, bars: Bars, period: int, multiplier: float) -> Outputs:
    bands = bollinger(source, bars, period, multiplier)
    width = each(lambda u, m, x: (u - x) / m, bands["upper"], bands["middle"], bands["lower"])
    return {"width": width}


def percent_b(source: Series, bars: Bars, period: int, multiplier: float) -> Outputs:
    bands = bollinger(source, bars, period, multiplier)
    return {
        "percent_b": each(lambda v, u, x: (v - x) / (u - x), source, bands["upper"], bands["lower"])
    }


def keltner(_: Series, bars: Bars, period: int, atr_period: int, multiplier: float) -> Outputs:
    middle, ranges = ema(bars.close.tolist(), period), atr_line(bars, atr_period)
    return {
        "upper": each(lambda m, r: m + multiplier * r, middle, ranges),
        "middle": middle,
        "lower": each(lambda m, r: m - multiplier * r, middle, ranges),
    }


def donchian(_: Series, bars: Bars, period: int) -> Outputs:
    upper = over_windows(bars.high.tolist(), period, max)
    lower = over_windows(bars.low.tolist(), period, min)
    middle = each(lambda a, b: (a + b) / 2, upper, lower)
    return {"upper": upper, "middle": middle, "lower": lower}


def squeeze(
    _: Series,
    bars: Bars,
    bb_period: int,
    bb_multiplier: float,
    kc_period: int,
    kc_multiplier: float,
) -> Outputs:
    bands = bollinger(bars.close.tolist(), bars, bb_period, bb_multiplier)
    channel = keltner([], bars, kc_period, 10, kc_multiplier)

    def inside(bu: float, bl: float, ku: float, kl: float) -> float:
        return max(0.0, min((ku - bu) / (ku - kl), (bl - kl) / (ku - kl)))

    edges = (bands["upper"], bands["lower"], channel["upper"], channel["lower"])
    return {"intensity": each(inside, *edges)}


def natr(_: Series, bars: Bars, period: int) -> Outputs:
    return {"natr": each(lambda r, c: 100 * r / c, atr_line(bars, period), bars.close.tolist())}


def log_return(source: Series, _: Bars, period: int) -> Outputs:
    return {
        "log_return": each(lambda b, a: math.log(b) - math.log(a), source, moved(source, period))
    }


def realised(source: Series, bars: Bars, period: int) -> Outputs:
    returns = log_return(source, bars, 1)["log_return"]
    return {
        "volatility": over_windows(
            returns, period, lambda part: math.sqrt(math.fsum(r * r for r in part))
        )
    }


# Volume


def running(values: Series) -> Series:
    return list(itertools.accumulate(values))


def obv(_: Series, bars: Bars) -> Outputs:
    """Granville's; begins with the first bar's volume, as TA-Lib does."""
    closes, volumes = bars.close.tolist(), bars.volume.tolist()
    signs = [1] + [(b > a) - (b < a) for a, b in itertools.pairwise(closes)]
    return {"obv": running([s * v for s, v in zip(signs, volumes, strict=True)])}


def vwap(source: Series, bars: Bars, period: int) -> Outputs:
    volumes = bars.volume.tolist()
    paid = over_windows([s * v for s, v in zip(source, volumes, strict=True)], period, math.fsum)
    return {"vwap": each(lambda a, b: a / b, paid, over_windows(volumes, period, math.fsum))}


def mfi(_: Series, bars: Bars, period: int) -> Outputs:
    typical, volumes = source_of(bars, "hlc3"), bars.volume.tolist()
    signs = [NAN] + [float((b > a) - (b < a)) for a, b in itertools.pairwise(typical)]
    flows = [s * t * v for s, t, v in zip(signs, typical, volumes, strict=True)]

    def share(part: Series) -> float:
        up = math.fsum(max(f, 0.0) for f in part)
        return 100 * up / math.fsum(abs(f) for f in part)

    return {"mfi": over_windows(flows, period, share)}


def flows(bars: Bars) -> Series:
    _, highs, lows, closes, volumes = columns(bars)
    return [
        v * ((c - x) - (h - c)) / (h - x)
        for h, x, c, v in zip(highs, lows, closes, volumes, strict=True)
    ]


def cmf(_: Series, bars: Bars, period: int) -> Outputs:
    volumes = over_windows(bars.volume.tolist(), period, math.fsum)
    return {"cmf": each(lambda a, b: a / b, over_windows(flows(bars), period, math.fsum), volumes)}


def adosc(_: Series, bars: Bars, fast_period: int, slow_period: int) -> Outputs:
    """TA-Lib's averages begin with the line's first value, and are shown once the slow one has
    seen its period."""
    line = running(flows(bars))
    fast, slow = ema(line, 1, 0)[:1], ema(line, 1, 0)[:1]
    for value in line[1:]:
        fast.append(fast[-1] + (value - fast[-1]) * 2 / (fast_period + 1))
        slow.append(slow[-1] + (value - slow[-1]) * 2 / (slow_period + 1))
    found = [a - b for a, b in zip(fast, slow, strict=True)]
    return {"adosc": [NAN] * (slow_period - 1) + found[slow_period - 1 :]}


def volume_ratio(_: Series, bars: Bars, period: int) -> Outputs:
    volumes = bars.volume.tolist()
    return {"ratio": each(lambda v, m: v / m, volumes, sma(volumes, period))}


# Statistics and clock


def zscore(part: Series) -> float:
    return (part[-1] - mean(part)) / deviation(part)


def rank(part: Series) -> float:
    *before, last = part
    below = sum(v < last for v in before) + 0.5 * sum(v == last for v in before)
    return 100 * below / len(before)


def opened(bars: Bars) -> list[datetime.datetime]:
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return [epoch + datetime.timedelta(microseconds=t) for t in bars.timestamps.tolist()]


def on_circle(turns: Series) -> Outputs:
    return {
        "sin": [math.sin(2 * math.pi * turn) for turn in turns],
        "cos": [math.cos(2 * math.pi * turn) for turn in turns],
    }


def hour_of_day(_: Series, bars: Bars) -> Outputs:
    return on_circle([(t.hour + t.minute / 60) / 24 for t in opened(bars)])


def day_of_week(_: Series, bars: Bars) -> Outputs:
    return on_circle([t.weekday() / 7 for t in opened(bars)])


def windowed(output: str, found: Callable[[Series], float]) -> Callable[..., Outputs]:
    return lambda source, _, period: {output: over_windows(source, period, found)}


def plain(output: str, line: Callable[[Series, int], Series]) -> Callable[..., Outputs]:
    return lambda source, _, period: {output: line(source, period)}


REFERENCE: dict[str, Callable[..., Outputs]] = {
    "sma": plain("sma", sma),
    "ema": plain("ema", ema),
    "wma": plain("wma", wma),
    "dema": plain("dema", dema),
    "tema": plain("tema", tema),
    "kama": plain("kama", kama),
    "hma": plain("hma", hma),
    "linreg_slope": windowed("slope", slope),
    "linreg_angle": windowed("angle", angle),
    "distancefromma": distance,
    "rsi": plain("rsi", rsi_line),
    "roc": roc,
    "momentum": momentum,
    "cmo": cmo,
    "trix": trix,
    "stochrsi": stochastic_rsi,
    "macd": macd,
    "ppo": ppo,
    "bollingerbands": bollinger,
    "bollingerbandwidth": band_width,
    "percent_b": percent_b,
    "zscore": windowed("zscore", zscore),
    "percentile": windowed("percentile", rank),
    "log_return": log_return,
    "realised_volatility": realised,
    "cci": cci,
    "williamsr": williams,
    "stochastic": stochastic,
    "ultosc": ultimate,
    "rvi": vigor,
    "fishertransform": fisher,
    "aroon": aroon,
    "adx": adx,
    "supertrend": supertrend,
    "parabolicsar": parabolic,
    "ichimoku": ichimoku,
    "atr": lambda _, bars, period: {"atr": atr_line(bars, period)},
    "natr": natr,
    "keltnerchannels": keltner,
    "donchianchannels": donchian,
    "squeezeintensity": squeeze,
    "obv": obv,
    "vwap": vwap,
    "mfi": mfi,
    "cmf": cmf,
    "adline": lambda _, bars: {"adline": running(flows(bars))},
    "adosc": adosc,
    "volumeratio": volume_ratio,
    "hour_of_day": hour_of_day,
    "day_of_week": day_of_week,
}
