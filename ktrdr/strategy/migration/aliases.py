"""What older files call the keys and values of the grammar, as tables.

A section's `renamed` gives the place of a key, from the root; `ignored` gives why a key goes.
Keys are compared without regard to case, hyphens and spaces (`Learning-Rate`, `learningRate`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

LATER_STAGE = "trading and backtests are a later stage; training uses none of it"
NEVER_READ = "nothing here uses it, and training never did"
FOLLOWS = "it follows from the rest of the strategy"


@dataclass(frozen=True)
class Section:
    """How the keys of one mapping are read: those of the grammar, other names, and the useless."""

    known: frozenset[str]
    renamed: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)


def respelt(word: str) -> str:
    """A key or value as the grammar would spell it: lower case, words joined by underscores."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", word.strip())
    return re.sub(r"[-\s.]+", "_", words).strip("_").lower()


def squeezed(word: str) -> str:
    """Letters and digits only, lower case: `Williams %R` is `williamsr`."""
    return re.sub(r"[^a-z0-9]", "", word.lower())


def to(target: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), target)


def _for(why: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), why)


def word_set(names: str) -> frozenset[str]:
    return frozenset(names.split())


ROOT = Section(
    word_set(
        "name description version scope training_data indicators fuzzy_sets nn_inputs model"
        " decisions training"
    ),
    {
        **to("name", "strategy_name"),
        **to("training_data", "data dataset"),
        **to("training_data.symbols", "symbol symbols"),
        **to("training_data.timeframes", "timeframe timeframes"),
        **to("fuzzy_sets", "fuzzy fuzzysets fuzzy_set fuzzy_logic"),
        **to("nn_inputs", "inputs network_inputs"),
        **to("model", "network neural_network nn"),
        **to("decisions", "decision"),
        **to("training.labels", "labels labeling"),
        **to("training.early_stopping", "early_stopping"),
        **to("training.data_split", "data_split splits"),
    },
    {
        **_for(LATER_STAGE, "orchestrator risk_management risk backtesting backtest execution"),
        **_for(LATER_STAGE, "position_sizing exit_rules entry_rules trading"),
        **_for("a model is used where you ask for it", "deployment target_symbols"),
        **_for(NEVER_READ, "feature_engineering features metadata author created created_at tags"),
        **_for(NEVER_READ, "fitness_metrics notes category analytics"),
    },
)

INFORMATIVE = word_set("hypothesis rationale notes author")

TRAINING_DATA = Section(
    word_set("symbols timeframes history_required start_date end_date"),
    {
        **to("training_data.symbols", "symbol"),
        **to("training_data.timeframes", "timeframe"),
        **to("training_data.start_date", "start from start_time date_from"),
        **to("training_data.end_date", "end to end_time date_to"),
        **to("training_data.history_required", "history min_history required_history"),
        **to("training_data.timeframes.base_timeframe", "base_timeframe"),
    },
    _for(NEVER_READ, "source provider data_mode"),
)

DATE_RANGE = Section(
    frozenset(),
    {
        **to("training_data.start_date", "start from start_date"),
        **to("training_data.end_date", "end to end_date"),
    },
)

MODEL = Section(
    word_set("type architecture"),
    {
        **to("model.type", "kind name"),
        **to("model.architecture", "arch"),
        **{
            key: f"model.architecture.{key}"
            for key in (
                "hidden_layers",
                "dropout",
                "activation",
                "sequence_length",
                "hidden_size",
                "num_layers",
            )
        },
    },
    {
        **_for(FOLLOWS, "input_size output_size num_classes output_activation"),
        **_for("no embedding of symbols is made", "symbol_embedding_dim"),
        **_for("the inputs are those of nn_inputs, one by one", "features"),
    },
)

ARCHITECTURE = Section(
    word_set("hidden_layers dropout activation sequence_length hidden_size num_layers"),
    {
        **to("model.architecture.hidden_layers", "hidden_dims hidden_sizes hidden_units layers"),
        **to("model.architecture.dropout", "dropout_rate dropout_p"),
        **to("model.architecture.activation", "activation_function"),
        **to("model.architecture.sequence_length", "seq_len seq_length lookback window_size"),
        **to("model.architecture.hidden_size", "hidden_dim"),
        **to("model.architecture.num_layers", "n_layers"),
    },
    {
        **_for(FOLLOWS, "output_activation input_size output_size num_classes"),
        **_for("no embedding of symbols is made", "symbol_embedding_dim"),
        **_for(NEVER_READ, "attention_mechanism batch_norm"),
    },
)

TRAINING = Section(
    word_set(
        "epochs batch_size learning_rate optimizer weight_decay momentum gradient_clip loss"
        " focal_gamma huber_delta lr_scheduler early_stopping data_split seed checkpoint labels"
    ),
    {
        **to("training.epochs", "num_epochs max_epochs n_epochs"),
        **to("training.batch_size", "batchsize batch"),
        **to("training.learning_rate", "lr learningrate initial_lr"),
        **to("training.optimizer", "optimiser"),
        **to("training.weight_decay", "l2 l2_reg l2_regularization weightdecay"),
        **to("training.gradient_clip", "grad_clip gradient_clipping clip_grad_norm max_grad_norm"),
        **to("training.gradient_clip", "gradient_clip_val clip_grad"),
        **to("training.loss", "loss_function loss_fn criterion"),
        **to("training.lr_scheduler", "scheduler learning_rate_scheduler lr_schedule"),
        **to("training.early_stopping", "early_stop earlystopping"),
        **to("training.early_stopping.patience", "early_stopping_patience patience"),
        **to("training.data_split", "split splits data_splits train_test_split"),
        **to("training.data_split.train", "train_split train_ratio"),
        **to("training.data_split.validation", "validation_split val_split val_ratio"),
        **to("training.data_split.test", "test_split test_ratio test_size"),
        **to("training.seed", "random_seed random_state"),
        **to("training.labels", "label labeling labelling"),
        **to("training_data.start_date", "start_date"),
        **to("training_data.end_date", "end_date"),
    },
    {
        **_for(NEVER_READ, "method fitness_metrics data_sampling analytics split_strategy shuffle"),
        **_for(NEVER_READ, "balanced_sampling cross_symbol_validation cross_symbol_evaluation"),
        **_for(NEVER_READ, "rl_config initial_supervised progress_update_frequency verbose"),
        **_for("the machine is chosen when training starts", "device gpu num_workers"),
        **_for("training never used it; data_split says how to walk forward", "walk_forward"),
        **_for("classes are always weighted", "class_weights class_weight use_class_weights"),
    },
)

EARLY_STOPPING = Section(
    word_set("enabled patience min_delta monitor"),
    {
        **to("training.early_stopping.enabled", "enable active"),
        **to("training.early_stopping.min_delta", "delta min_improvement threshold tolerance"),
        **to("training.early_stopping.monitor", "metric"),
    },
    {
        **_for("it follows from the metric", "mode"),
        **_for("the best epoch is always the one that is stored", "restore_best_weights"),
        **_for(NEVER_READ, "verbose"),
    },
)

LR_SCHEDULER = Section(
    word_set("type step_size gamma factor patience"),
    to("training.lr_scheduler.type", "name kind scheduler mode_type"),
    {
        **_for("the cosine ends with the epochs, at zero", "t_max eta_min"),
        **_for("the schedule watches the validation loss", "mode monitor metric"),
        **_for(NEVER_READ, "enabled verbose"),
    },
)

DATA_SPLIT = Section(
    word_set("train validation test"),
    {
        **to("training.data_split.train", "training train_ratio train_size train_split"),
        **to("training.data_split.validation", "val valid validation_ratio val_ratio val_size"),
        **to("training.data_split.validation", "val_split validation_split dev"),
        **to("training.data_split.test", "testing test_ratio test_size test_split holdout"),
    },
)
SPLIT_MODES = word_set("mode type method folds n_splits num_folds scheme")

DECISIONS = Section(
    word_set("output_format confidence_threshold position_awareness filters cost_model"),
    {
        **to("decisions.output_format", "output format output_type"),
        **to("decisions.confidence_threshold", "threshold min_confidence"),
    },
    {
        **_for("it follows from the labels", "num_classes n_classes"),
        **_for(LATER_STAGE, "thresholds timeframe_weights latency_requirements"),
        **_for(LATER_STAGE, "symbol_aware_decisions cross_symbol_consistency"),
    },
)

LABEL_KEYS: dict[str, frozenset[str]] = {
    "zigzag": word_set("zigzag_threshold"),
    "triple_barrier": word_set(
        "pt_multiplier sl_multiplier max_holding_period vol_span vol_method compute_weights"
        " cusum_threshold cusum_multiplier"
    ),
    "forward_return": word_set("horizon"),
    "context": word_set("horizon bullish_threshold bearish_threshold"),
    "regime": word_set(
        "macro_atr_mult micro_atr_mult atr_period vol_lookback vol_crisis_threshold"
        " progression_tolerance"
    ),
}
LABEL_NAMES: dict[str, dict[str, str]] = {
    "zigzag": to("zigzag_threshold", "threshold zigzag_pct deviation reversal min_change"),
    "triple_barrier": {
        **to("pt_multiplier", "profit_target_atr profit_target profit_multiplier tp_multiplier"),
        **to("pt_multiplier", "pt_mult take_profit_atr upper_multiplier"),
        **to("sl_multiplier", "stop_loss_atr stop_loss stop_multiplier sl_mult lower_multiplier"),
        **to("max_holding_period", "max_holding_bars max_holding holding_period max_bars"),
        **to("max_holding_period", "vertical_barrier time_limit"),
        **to("vol_span", "atr_period vol_period volatility_span vol_window"),
        **to("vol_method", "volatility_method volatility"),
        **to("compute_weights", "uniqueness_weights sample_weights"),
    },
    "forward_return": to("horizon", "forward_bars forward_period horizon_bars lookahead bars"),
    "context": to("horizon", "forward_bars forward_period horizon_bars lookahead bars"),
    "regime": {**to("macro_atr_mult", "macro_mult"), **to("micro_atr_mult", "micro_mult")},
}
LABEL_SOURCE_KEYS = word_set("type method kind label_type label_source label_method")
LABEL_IGNORED = _for("the labels look as far ahead as they need", "label_lookahead lookahead")
LABEL_SOURCES = {
    **to("zigzag", "zigzag zigzaglabels"),
    **to("triple_barrier", "triplebarrier tb triplebarrierlabels"),
    **to("forward_return", "forwardreturn forwardreturns futurereturn returns return"),
    **to("context", "context trendcontext"),
    **to("regime", "regime marketregime"),
}
