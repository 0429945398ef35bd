"""`ktrdr verify-resume`: proof on one's own strategy and bars that a resume changes nothing."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ktrdr.cli import render
from ktrdr.cli.command import Call, command
from ktrdr.cli.interrupts import Interrupted, Interrupts, disregard_signals
from ktrdr.cli.training_options import TrainingArguments

if TYPE_CHECKING:
    from ktrdr.usecases.verify_resume.verification import VerificationProgress

_DIFFERENT = 1
_PLAIN_LINE_EVERY_S = 5.0


def add_to(app: typer.Typer) -> None:
    command(app, "verify-resume")(verify_resume)


def verify_resume(
    call: Call,
    strategy: Annotated[str, typer.Argument(metavar="STRATEGY", help="A strategy's YAML file.")],
    training: TrainingArguments,
    kills: Annotated[
        int, typer.Option(min=1, max=1000, help="How often to interrupt it: stops and SIGKILLs.")
    ] = 3,
    chaos_seed: Annotated[
        int | None, typer.Option(min=0, help="Sample the interruptions of an earlier run again.")
    ] = None,
) -> int:
    """Train twice, straight and with stops and kills at random batches, and compare.

    Both trainings happen in a temporary folder; operations, models and checkpoints are left as
    they are. Exit status: 0 equal in every epoch and at the end, 1 different, 130 interrupted.
    """
    from ktrdr.storage.root import Storage
    from ktrdr.usecases.submit import prepare
    from ktrdr.usecases.verify_resume.verification import Observer, verify

    interrupts = Interrupts()
    interrupts.install()
    settings, options = call.settings(), training.options()
    folds = prepare(Path(strategy), options, Storage(settings.storage), settings.cache_bytes)
    request, plan = folds[-1]
    if len(folds) > 1:
        render.say(f"training the last of {len(folds)} folds")
    interrupts.install()  # again: polars, loaded meanwhile, has a SIGINT handler of its own
    sampled_from = secrets.randbelow(2**32) if chaos_seed is None else chaos_seed
    render.say(f"interruptions are sampled from --chaos-seed {sampled_from}")
    with render.live_line() as live:
        follower = _Follower(interrupts, live)
        observer = Observer(follower.show, render.say)
        found = verify(request, plan, kills, sampled_from, observer).document()
    call.answer(found, lambda: _findings(found))
    return 0 if found["equal"] else _DIFFERENT


class _Follower:
    """Shows the progress: one live line on a terminal, elsewhere a line now and then."""

    def __init__(self, interrupts: Interrupts, live: Any) -> None:
        self._interrupts = interrupts
        self._live = live
        self._said_at = 0.0

    def show(self, progress: VerificationProgress) -> None:
        if self._interrupts.count:
            disregard_signals()  # what follows tidies up
            raise Interrupted("stopped: nothing was compared, and nothing is left behind")
        line = f"{progress.training} training, attempt {progress.attempt}: "
        line += f"epoch {progress.epoch}/{progress.epochs}" if progress.epochs else "starting"
        if self._live is not None:
            self._live(line)
        elif time.monotonic() - self._said_at >= _PLAIN_LINE_EVERY_S:
            self._said_at = time.monotonic()
            render.say(line)


def _findings(found: Mapping[str, Any]) -> str:
    interruptions = found["interruptions"]
    pairs = [
        ("resumed is", "equal to straight, bit for bit" if found["equal"] else "DIFFERENT"),
        ("first difference", _difference(found["first_difference"])),
        ("epochs", found["epochs"]),
        (
            "interruptions",
            "; ".join(map(_past, interruptions)) or "none: the training ended before",
        ),
        *((f"weights, {name}", digest) for name, digest in found["digests"].items()),
        ("sampled from", f"--chaos-seed {found['seed']}"),
    ]
    return render.fields(pairs)


def _difference(difference: Mapping[str, Any] | None) -> str | None:
    if difference is None:
        return None
    parts, epoch = ", ".join(difference["parts"]), difference["epoch"]
    if epoch is None:
        return f"in the outcome, after equal epochs: {parts}"
    by = f", attempt {difference['attempt']}" if difference["attempt"] else ""
    return f"in epoch {epoch}{by}: {parts}"


def _past(interruption: Mapping[str, Any]) -> str:
    saving = " while saving" if interruption["saving"] else ""
    where = f"after epoch {interruption['epoch']} batch {interruption['batch']}"
    return f"{interruption['kind']} {where}{saving}"
