"""The learner: network, optimizer, and the state between epochs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ktrdr.errors import CheckpointCorrupted, DataChanged
from ktrdr.features.dataset import Dataset
from ktrdr.operations.types import CheckpointType, HistoryRow
from ktrdr.strategy.schema import Strategy
from ktrdr.training.batches import Batch, ShuffledBatches, Split
from ktrdr.training.losses import make_criterion
from ktrdr.training.networks import build_model
from ktrdr.training.optimization import (
    catch_up,
    learning_rate,
    make_optimizer,
    make_scheduler,
    step_scheduler,
)
from ktrdr.training.resume import TrainingResumeContext
from ktrdr.training.split_scores import evaluate
from ktrdr.training.state import (
    Loop,
    NonFiniteLoss,
    Snapshot,
    check_finite,
    cpu_copy,
    random_state,
    restore_random_state,
    seed_everything,
)
from ktrdr.training.weights import fit_state

_FOLDED_BATCHES = 128


@dataclass(frozen=True)
class Device:
    """Where a learner computes, and the clock that it measures epochs with."""

    device: torch.device
    rank: int
    clock: Callable[[], float]


class Learner:
    """Everything that changes while training; consistent unless `mid_update`."""

    def __init__(self, strategy: Strategy, dataset: Dataset, device: Device) -> None:
        training, splits = strategy.training, dataset.splits
        seed_everything(training.seed)
        self._training = training
        self._device = device
        self._dataset = dataset
        self._sequence_length = strategy.model.sequence_length
        split = self._split(splits.train)
        self._rows = len(split)
        self._shuffled = ShuffledBatches(split, training.batch_size, training.seed)
        self._validation = self._split(splits.validation)
        self._criterion = make_criterion(training, split.labels, dataset.class_names)
        self.model = build_model(
            strategy.model,
            dataset.columns,
            self._criterion.num_outputs,
            training.seed,
            split.last_rows,
        ).to(device.device)
        self._parameters = list(self.model.parameters())
        self.optimizer = make_optimizer(training, self._parameters, device.device)
        self.scheduler = make_scheduler(training, self.optimizer)
        self.best_weights: dict[str, Tensor] | None = None
        self.loop = Loop(seed=training.seed)
        self.mid_update = False
        self._losses: list[Tensor] = []
        self._outputs: list[Tensor] = []
        self._resumed_at = device.clock()

    @property
    def num_batches(self) -> int:
        """Batches per epoch."""
        return len(self._shuffled)

    @property
    def steps(self) -> int:
        """Batches done since the beginning."""
        return self.loop.epoch * self.num_batches + self.loop.batch

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or early stopping ended them before."""
        stopping = self._training.early_stopping
        if stopping and stopping.enabled and self.loop.stale_epochs >= stopping.patience:
            return True
        return self.loop.epoch >= self._training.epochs

    @property
    def stopped_early(self) -> bool:
        """Whether it is finished with fewer epochs than were asked for."""
        return self.finished and self.loop.epoch < self._training.epochs

    @property
    def monitor(self) -> str:
        """The metric that chooses the best epoch; without a validation split the last is best."""
        return self._training.monitor

    def running_loss(self) -> float | None:
        """Return the mean loss over the running epoch's batches so far; waits for the device."""
        self._fold()
        rows = min(self.loop.batch * self._training.batch_size, self._rows)
        return self.loop.loss_total / rows if rows else None

    def restore(self, resume: TrainingResumeContext, changed: bool = False) -> None:
        """Take over a checkpoint's state; CheckpointCorrupted or DataChanged when it is foreign.

        `changed`: the training section was changed since, by what keeps a checkpoint loadable.
        """
        if resume.manifest.dataset_digest != self._dataset.digest:
            raise DataChanged(
                "the features and labels are not those of the checkpoint: resume with the same"
                " bars and strategy, or start a new training"
            )
        state = resume.random_states.get(str(self._device.rank))
        if state is None:
            raise _foreign("loop.pt")
        if resume.loop.best_epoch:
            fit_state(self.model, resume.best_model_weights or {}, "best_model.pt")
            self.best_weights = cpu_copy(self.model.state_dict())  # by the names of this network
        fit_state(self.model, resume.model_weights, "model.pt")
        _check_optimizer(self.optimizer.state_dict(), resume.optimizer_state)
        self.loop = copy.deepcopy(resume.loop)
        # Torch keeps the very tensors that it is given, and would train on in the context's.
        optimizer_state = copy.deepcopy(resume.optimizer_state)
        if changed:
            self._restore_under_other_settings(optimizer_state)
        else:
            self.optimizer.load_state_dict(optimizer_state)
            self._restore_schedule(resume.scheduler_state)
        restore_random_state(state, self._device.device)

    def remaining_batches(self) -> Iterable[Batch]:
        """The batches of the running epoch that are still to be done, in its order."""
        self._resumed_at = self._device.clock()
        return self._shuffled.arrange(self.loop.epoch, self.loop.batch)

    def step(self, batch: Batch) -> None:
        """Learn from one batch. Never waits for the device but once in many batches."""
        self.mid_update = True
        for parameter in self._parameters:
            parameter.grad = None  # what zero_grad does, without its profiler's bookkeeping
        outputs = self.model(batch.inputs)
        loss = self._criterion.mean(outputs, batch.labels, batch.weights)
        torch.autograd.backward(loss)
        if self._training.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._training.gradient_clip)
        self.optimizer.step()
        self._losses.append(loss.detach())
        self._outputs.append(outputs.detach())
        self.loop.batch += 1
        if len(self._losses) == _FOLDED_BATCHES:
            self._fold()
        self.mid_update = False

    def finish_epoch(self) -> HistoryRow:
        """Validate, remember the best, move the schedule; raises NonFiniteLoss."""
        metrics = self._epoch_metrics()
        row = HistoryRow(self.loop.epoch + 1, metrics)
        self.mid_update = True
        self.loop.history.append(row)
        self._update_best(row)
        step_scheduler(self.scheduler, metrics.get(self.monitor))
        self.loop.epoch, self.loop.batch = row.epoch, 0
        self.loop.loss_total, self.loop.correct, self.loop.seconds = 0.0, 0, 0.0
        self.mid_update = False
        return row

    def snapshot(self, kind: CheckpointType) -> Snapshot:
        """A copy of everything that a resume needs; raises NonFiniteLoss."""
        self._fold()
        loop = copy.copy(self.loop)
        loop.history = list(self.loop.history)
        if loop.batch:
            loop.seconds = self._epoch_seconds()
        snapshot = Snapshot(
            checkpoint_type=kind,
            loop=loop,
            global_step=self.steps,
            model=cpu_copy(self.model.state_dict()),
            optimizer=cpu_copy(self.optimizer.state_dict()),
            scheduler=cpu_copy(self.scheduler.state_dict()) if self.scheduler else None,
            best_model=self.best_weights,  # a copy already, replaced and never written to
            random_state=random_state(self._device.device),
            rank=self._device.rank,
        )
        self._check_finite(snapshot.model, "the model's weights")
        self._check_finite(snapshot.optimizer, "the optimizer's state")
        self._check_finite(_numbers(loop.loss_total), "the training loss")
        return snapshot

    def test(self) -> dict[str, Any]:
        """Metrics of the best epoch's weights, which the model then holds: training is over."""
        self.mid_update = True
        assert self.best_weights is not None
        self.model.load_state_dict(self.best_weights)
        best = self.loop.history[self.loop.best_epoch - 1].metrics
        hit_metric = self._criterion.hit_metric
        metrics: dict[str, Any] = {
            name: best[name] for name in ("val_loss", f"val_{hit_metric}") if name in best
        }
        split = self._split(self._dataset.splits.test)
        if not len(split):
            return metrics
        found = evaluate(self.model, split, self._criterion)
        self._check_finite(_numbers(found.loss), "the test loss")
        return {
            **metrics,
            "test_loss": found.loss,
            f"test_{hit_metric}": found.hit_rate,
            **self._criterion.report(found.predictions, split.labels),
        }

    def _split(self, rows: range) -> Split:
        return Split(self._dataset, rows, self._device.device, self._sequence_length)

    def _restore_schedule(self, state: dict[str, Any] | None) -> None:
        if (self.scheduler is None) != (state is None):
            raise _foreign("scheduler.pt")
        if self.scheduler is not None and state is not None:
            self.scheduler.load_state_dict(copy.deepcopy(state))

    def _restore_under_other_settings(self, optimizer_state: dict[str, Any]) -> None:
        """Options of the optimizer as the strategy says now: the stored ones would hide them.

        Schedule and early stopping come to stand where the epochs done bring them under it.
        """
        own_options = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict(optimizer_state | {"param_groups": own_options})
        catch_up(self.scheduler, [row.metrics.get(self.monitor) for row in self.loop.history])
        self.loop.reference_score, self.loop.stale_epochs = None, 0
        for row in self.loop.history:
            self._watch(row)

    def _epoch_metrics(self) -> dict[str, Any]:
        self._fold()
        hit_metric = self._criterion.hit_metric
        metrics: dict[str, Any] = {
            "train_loss": self.loop.loss_total / self._rows,
            f"train_{hit_metric}": self.loop.correct / self._rows,
        }
        if len(self._validation):
            found = evaluate(self.model, self._validation, self._criterion)
            metrics |= {"val_loss": found.loss, f"val_{hit_metric}": found.hit_rate}
        self._check_finite(_numbers(*metrics.values()), "the loss")
        self._check_finite(self.model.state_dict(), "the model's weights")
        return metrics | {
            "learning_rate": learning_rate(self.optimizer),
            "duration": self._epoch_seconds(),
        }

    def _update_best(self, row: HistoryRow) -> None:
        """Best epoch: strictly better, so ties go to the earliest; without validation the last."""
        loop, score = self.loop, row.metrics.get(self.monitor)
        if score is None or self._training.improves(score, loop.best_score):
            loop.best_epoch, loop.best_score = row.epoch, score
            self.best_weights = cpu_copy(self.model.state_dict())
        self._watch(row)

    def _watch(self, row: HistoryRow) -> None:
        """Count the epochs since early stopping last saw an improvement."""
        loop, stopping = self.loop, self._training.early_stopping
        score = row.metrics.get(self.monitor)
        if score is None or stopping is None:
            return
        if self._training.improves(score, loop.reference_score, stopping.min_delta):
            loop.reference_score, loop.stale_epochs = score, 0
        else:
            loop.stale_epochs += 1

    def _fold(self) -> None:
        """Add the batches since the last fold to the epoch's sums, one after the other.

        Strictly in order, in double precision: where folds fall does not change a bit.
        """
        if not self._losses:
            return
        size, first = self._training.batch_size, self.loop.batch - len(self._losses)
        labels = self._shuffled.labels[first * size : self.loop.batch * size]
        predicted = self._criterion.predictions(torch.cat(self._outputs))
        self.loop.correct += int(self._criterion.hits(predicted, labels).sum().item())
        for index, loss in enumerate(torch.stack(self._losses).tolist(), start=first):
            self.loop.loss_total += loss * min(size, self._rows - index * size)
        self._losses.clear()
        self._outputs.clear()

    def _epoch_seconds(self) -> float:
        return self.loop.seconds + self._device.clock() - self._resumed_at

    def _check_finite(self, value: Any, what: str) -> None:
        position = f"after epoch {self.loop.epoch}, batch {self.loop.batch}"
        try:
            check_finite(value, f"{what} {position}")
        except NonFiniteLoss:
            self.mid_update = True
            raise


def _numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _check_optimizer(own: dict[str, Any], stored: Any) -> None:
    """Torch itself accepts another optimizer's state, and fails only at the next step."""
    try:
        same = [_options(group) for group in own["param_groups"]] == [
            _options(group) for group in stored["param_groups"]
        ]
    except (KeyError, TypeError, AttributeError):
        same = False
    if not same:
        raise _foreign("optimizer.pt")


def _options(group: dict[str, Any]) -> tuple[set[str], int]:
    return set(group) - {"initial_lr"}, len(group["params"])


def _foreign(name: str) -> CheckpointCorrupted:
    return CheckpointCorrupted(
        f"{name} of the checkpoint does not fit the strategy's training section:"
        " use the strategy that it was made with",
        files={name: "of another training"},
    )
