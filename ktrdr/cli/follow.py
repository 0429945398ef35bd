"""Follow a training in the foreground: show progress, obey Ctrl-C, report the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ktrdr.cli import operation_views, render
from ktrdr.cli.interrupts import EXIT_STATUS, Interrupts
from ktrdr.errors import Conflict
from ktrdr.operations.fold_summary import summarise

if TYPE_CHECKING:
    from ktrdr.cli.command import Call
    from ktrdr.client import Operation

Record = dict[str, Any]

_PLAIN_LINE_EVERY_S = 5.0
_EXIT_STATUS = {"completed": 0, "failed": 1, "cancelled": EXIT_STATUS}


def follow(call: Call, operation: Operation, interrupts: Interrupts) -> int:
    """Follow a submitted or resumed operation to its end; the exit status says how it ended."""
    [record] = _follow([operation], interrupts)
    return _report(call, record)


def follow_folds(call: Call, operations: Sequence[Operation], interrupts: Interrupts) -> int:
    """Follow all folds of a strategy to their ends; the exit status is that of the worst end."""
    records = _follow(operations, interrupts)
    summary = summarise(records)
    found = {"operations": records, "total": len(records), "summary": summary}
    call.answer(found, lambda: operation_views.folds(records, summary))
    for record in records:
        _advise(record)
    statuses = {_EXIT_STATUS[record["status"]] for record in records}
    return next(status for status in (1, EXIT_STATUS, 0) if status in statuses)


def _follow(operations: Sequence[Operation], interrupts: Interrupts) -> list[Record]:
    """The last records of operations that run at once, as far as there is room for them."""
    interrupts.install()  # again: polars, loaded meanwhile, has a SIGINT handler of its own
    with render.live_line() as show:
        stop = _Stop(operations, interrupts)
        warnings = [_Warnings(operation) for operation in operations]

        def look_round() -> None:
            stop.obey()
            for one in warnings:
                one.say_new()

        return [_follow_one(operation, look_round, show) for operation in operations]


def _follow_one(
    operation: Operation, look_round: Callable[[], None], show: Callable[[str], None] | None
) -> Record:
    progress = Progress(show)

    def look(current: Record) -> None:
        look_round()
        if current["status"] not in _EXIT_STATUS:
            progress.show(current)

    return operation.wait(on_record=look)


class Progress:
    """One live line on a terminal; elsewhere a line for a new epoch, every few seconds at most."""

    def __init__(
        self,
        show: Callable[[str], None] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`show` replaces the live line; None where there is no terminal."""
        self._show = show
        self._clock = clock
        self._stage: tuple[Any, ...] = ()
        self._said_at: float | None = None

    def show(self, record: Record) -> None:
        stage = _stage(record)
        if self._show is None and (stage == self._stage or not self._due(stage)):
            return
        self._stage = stage
        line = operation_views.progress_line(record)
        if self._show is not None:
            self._show(line)
        else:
            self._said_at = self._clock()
            render.say(line)

    def _due(self, stage: tuple[Any, ...]) -> bool:
        """A new phase is said at once, a new epoch when the last line is old enough."""
        if self._said_at is None or stage[:2] != self._stage[:2]:
            return True
        return self._clock() - self._said_at >= _PLAIN_LINE_EVERY_S


class _Warnings:
    """Says once each trouble that the training survived since this command follows it."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self._seen = max((event["id"] for event in operation.events()), default=0)

    def say_new(self) -> None:
        for event in self._operation.events(after=self._seen):
            self._seen = event["id"]
            if event["event"] == "warned":
                render.say(f"warning: {event['details']['message']}")


class _Stop:
    """Does once what each further signal asks for."""

    def __init__(self, operations: Sequence[Operation], interrupts: Interrupts) -> None:
        self._operations = operations
        self._interrupts = interrupts
        self._obeyed = 0

    def obey(self) -> None:
        asked = self._interrupts.count
        if asked > self._obeyed and self._obeyed == 0:
            render.say("cancelling: waiting for the last checkpoint; interrupt again to kill it")
            for operation in self._operations:
                with contextlib.suppress(Conflict):  # it ended meanwhile: the next look says how
                    operation.cancel()
        if asked > 1 and self._obeyed < 2:
            render.say("killing it: its latest committed checkpoint stands")
            for operation in self._operations:
                with contextlib.suppress(Conflict):
                    operation.kill()
        self._obeyed = asked


def _report(call: Call, record: Record) -> int:
    call.answer(record, lambda: operation_views.operation(record))
    _advise(record)
    return _EXIT_STATUS[record["status"]]


def _advise(record: Record) -> None:
    name, status = record["operation_id"], record["status"]
    early = operation_views.stopped_early(record)
    if early is not None:
        render.say(early)
    if status == "failed":
        render.say(f"failed: {record['error']['message']}")
    if status in ("failed", "cancelled") and record["checkpoint"] is not None:
        render.say(f"resume it with: ktrdr operations resume {name}")


def _stage(record: Record) -> tuple[Any, ...]:
    progress = record["progress"]
    phase = "training" if record["phase"] == "saving" else record["phase"]
    return record["attempt"], phase, progress["epoch"] if progress else None
