"""What older files call the values of the grammar: kinds, shapes, indicators, their parameters.

Compared by letters and digits only (`squeezed`), except parameters (`respelt`).
"""

from __future__ import annotations

from collections.abc import Iterable

from ktrdr.strategy.migration.aliases import squeezed, to, word_set

VALUES: dict[str, dict[str, str]] = {
    "training.optimizer": {
        **to("adam", "adam"),
        **to("adamw", "adamw"),
        **to("sgd", "sgd"),
        **to("rmsprop", "rmsprop"),
    },
    "training.loss": {
        **to("cross_entropy", "crossentropy crossentropyloss ce categoricalcrossentropy nll"),
        **to("focal", "focal focalloss"),
        **to("huber", "huber huberloss smoothl1 smoothl1loss"),
        **to("mse", "mse mseloss meansquarederror l2loss"),
    },
    "training.lr_scheduler.type": {
        **to("step", "step steplr stepdecay"),
        **to("exponential", "exponential exponentiallr exp exponentialdecay"),
        **to("cosine", "cosine cosineannealing cosineannealinglr"),
        **to("reduce_on_plateau", "reduceonplateau reducelronplateau plateau"),
    },
    "training.early_stopping.monitor": {
        **to("val_loss", "valloss validationloss loss"),
        **to("val_accuracy", "valaccuracy valacc validationaccuracy accuracy acc"),
    },
    "model.type": {
        **to("mlp", "mlp multilayerperceptron feedforward dense neuralnetwork mlpclassifier"),
        **to("lstm", "lstm"),
        **to("gru", "gru"),
        **to("tcn", "tcn temporalconvolutional"),
        **to("neuro_fuzzy", "neurofuzzy anfis"),
    },
    "model.architecture.activation": {
        **to("relu", "relu"),
        **to("tanh", "tanh"),
        **to("sigmoid", "sigmoid logistic"),
        **to("leaky_relu", "leakyrelu lrelu"),
        **to("gelu", "gelu"),
    },
    "decisions.output_format": {
        **to("classification", "classification classifier classes"),
        **to("regression", "regression regressor"),
    },
}
NORMALIZATIONS = {
    **to("minmax", "minmax minmaxscaler minmaxscaling"),
    **to("zscore", "zscore standard standardize standardise standardscaler"),
    **to("robust", "robust robustscaler"),
    **to("none", "none raw off"),
}
SHAPES = {
    **to("triangular", "triangular triangle tri trimf"),
    **to("trapezoidal", "trapezoidal trapezoid trap trapmf"),
    **to("gaussian", "gaussian gauss gaussmf normal"),
    **to("bell", "bell gbell gbellmf generalizedbell generalisedbell"),
    **to("sigmoid", "sigmoid sigmoidal sigmf"),
}
SHAPE_PARAMETERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "triangular": (("a", "left", "low"), ("b", "peak", "center", "centre"), ("c", "right", "high")),
    "trapezoidal": (("a",), ("b",), ("c",), ("d",)),
    "gaussian": (("mean", "center", "centre", "mu"), ("sigma", "std", "width")),
    "bell": (("width", "a"), ("slope", "b"), ("centre", "center", "c")),
    "sigmoid": (("centre", "center", "c"), ("slope", "steepness", "a")),
}

INDICATOR_TYPES = {
    **{
        name: name
        for name in word_set(
            "rsi roc momentum cci williamsr stochastic rvi fishertransform aroon atr"
            " bollingerbands bollingerbandwidth keltnerchannels donchianchannels supertrend sma ema"
            " wma macd adx parabolicsar ichimoku obv vwap mfi cmf adline volumeratio"
            " distancefromma squeezeintensity"
        )
    },
    **to("stochastic", "stoch stochasticoscillator"),
    **to("bollingerbands", "bb bband bbands bollinger bollingerband"),
    **to("bollingerbandwidth", "bbw bbwidth bollingerwidth bandwidth"),
    **to("keltnerchannels", "keltner kc keltnerchannel"),
    **to("donchianchannels", "donchian dc donchianchannel"),
    **to("williamsr", "willr williams williamspercentr"),
    **to("parabolicsar", "psar sar"),
    **to("fishertransform", "fisher"),
    **to("adline", "ad adl accumulationdistribution accumulationdistributionline"),
    **to("momentum", "mom"),
    **to("squeezeintensity", "squeeze"),
    **to("volumeratio", "volratio"),
    **to("distancefromma", "madistance distancema"),
    **to("rsi", "relativestrengthindex"),
    **to("roc", "rateofchange"),
    **to("ema", "exponentialmovingaverage"),
    **to("atr", "averagetruerange"),
    **to("adx", "averagedirectionalindex"),
    **to("cci", "commoditychannelindex"),
    **to("mfi", "moneyflowindex"),
    **to("cmf", "chaikinmoneyflow"),
    **to("obv", "onbalancevolume"),
    **to("sma", "simplemovingaverage ma"),
    **to("wma", "weightedmovingaverage"),
    **to("rvi", "relativevigorindex"),
    **to("ichimoku", "ichimokucloud"),
}
PARAMETERS: dict[str, tuple[str, ...]] = {
    "fast": ("fast_period",),
    "slow": ("slow_period",),
    "signal": ("signal_period",),
    "fast_length": ("fast_period",),
    "slow_length": ("slow_period",),
    "signal_length": ("signal_period",),
    "signal_period": ("smoothing",),
    "timeperiod1": ("short_period",),
    "timeperiod2": ("medium_period",),
    "timeperiod3": ("long_period",),
    "fastperiod": ("fast_period",),
    "slowperiod": ("slow_period",),
    "signalperiod": ("signal_period",),
    **dict.fromkeys(
        word_set("length window timeperiod time_period n lookback periods span"),
        ("period", "k_period", "bb_period"),
    ),
    "period": ("k_period", "bb_period"),
    **dict.fromkeys(
        word_set("std_dev std stddev num_std nbdev nbdevup std_mult atr_multiplier factor mult"),
        ("multiplier", "bb_multiplier"),
    ),
    "k": ("k_period",),
    "d": ("d_period",),
    "fastk_period": ("k_period",),
    "smooth": ("smooth_k",),
    "k_smooth": ("smooth_k",),
    "smoothing": ("smooth_k",),
    "tenkan": ("tenkan_period",),
    "kijun": ("kijun_period",),
    "senkou": ("senkou_b_period",),
    "senkou_period": ("senkou_b_period",),
    "acceleration": ("step_af",),
    "step": ("step_af",),
    "max_acceleration": ("max_af",),
    "maximum": ("max_af",),
    "type_of_ma": ("ma_type",),
}
OUTPUTS: dict[str, tuple[str, ...]] = {
    "macd": ("line",),
    "macdline": ("line",),
    "hist": ("histogram",),
    "macdhist": ("histogram",),
    "macdhistogram": ("histogram",),
    "macdsignal": ("signal",),
    "signalline": ("signal",),
    "diplus": ("plus_di",),
    "plusdi": ("plus_di",),
    "pdi": ("plus_di",),
    "diminus": ("minus_di",),
    "minusdi": ("minus_di",),
    "mdi": ("minus_di",),
    "slowk": ("k",),
    "slowd": ("d",),
    "stochk": ("k",),
    "stochd": ("d",),
    "mid": ("middle",),
    "middleband": ("middle",),
    "upperband": ("upper",),
    "lowerband": ("lower",),
    "aroonup": ("up",),
    "aroondown": ("down",),
    "aroonosc": ("oscillator",),
    "osc": ("oscillator",),
}
PRICES = word_set("open high low close hl2 hlc3 ohlc4 volume")


def nearest_value(path: str, value: str) -> str | None:
    """Return the grammar's word for a value; None when it is in no table."""
    return VALUES.get(path, {}).get(squeezed(value))


def first_in(names: Iterable[str], known: Iterable[str]) -> str | None:
    """The first of some names that is known."""
    choice = set(known)
    return next((name for name in names if name in choice), None)
