"""The candle patterns of TA-Lib that a strategy may name, and which of them take `penetration`.

`penetration` is how deep the last candle must reach into an earlier one's body, as a share of it.
"""

from __future__ import annotations

_NAMES = """
    cdl2crows cdl3blackcrows cdl3inside cdl3linestrike cdl3outside cdl3starsinsouth
    cdl3whitesoldiers cdlabandonedbaby cdladvanceblock cdlbelthold cdlbreakaway
    cdlclosingmarubozu cdlconcealbabyswall cdlcounterattack cdldarkcloudcover cdldoji cdldojistar
    cdldragonflydoji cdlengulfing cdleveningdojistar cdleveningstar cdlgapsidesidewhite
    cdlgravestonedoji cdlhammer cdlhangingman cdlharami cdlharamicross cdlhighwave cdlhikkake
    cdlhikkakemod cdlhomingpigeon cdlidentical3crows cdlinneck cdlinvertedhammer cdlkicking
    cdlkickingbylength cdlladderbottom cdllongleggeddoji cdllongline cdlmarubozu cdlmatchinglow
    cdlmathold cdlmorningdojistar cdlmorningstar cdlonneck cdlpiercing cdlrickshawman
    cdlrisefall3methods cdlseparatinglines cdlshootingstar cdlshortline cdlspinningtop
    cdlstalledpattern cdlsticksandwich cdltakuri cdltasukigap cdlthrusting cdltristar
    cdlunique3river cdlupsidegap2crows cdlxsidegap3methods
"""
CANDLE_PATTERNS: tuple[str, ...] = tuple(_NAMES.split())

PENETRATIONS: dict[str, float] = {
    "cdlabandonedbaby": 0.3,
    "cdldarkcloudcover": 0.5,
    "cdleveningdojistar": 0.3,
    "cdleveningstar": 0.3,
    "cdlmathold": 0.5,
    "cdlmorningdojistar": 0.3,
    "cdlmorningstar": 0.3,
}
