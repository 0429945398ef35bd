"""The transitions searched: every order in which two clients, an owner and two attempts can act.

Each move is what one of them may send at any time, also late, repeated, or judged on a row that
has moved on. After each the rules of the state machine are checked. A transition broken on
purpose must be found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ktrdr.errors import KtrdrError
from ktrdr.operations import attempt_end, transitions
from ktrdr.operations.attempt_end import AttemptEnd
from ktrdr.operations.event_replay import inconsistency
from ktrdr.operations.explanation import text_of
from ktrdr.operations.restart_policy import latest_good_row
from ktrdr.operations.state_machine import Transition
from ktrdr.operations.transition_records import TransitionRecord
from ktrdr.operations.types import (
    Adoption,
    Checkpoint,
    CheckpointType,
    Event,
    FailureReason,
    NewCheckpoint,
    Operation,
    Owner,
    OwnerKind,
    Phase,
    Plan,
    Report,
    Request,
    Result,
    ResumedFrom,
    Resumption,
    Status,
    StopKind,
)

DEPTH = 7
MAX_ATTEMPT = 4
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
AFTER_BACK_OFF = AT + timedelta(minutes=2)
ID = "op_training_20260102_030405_0123abcd"
OWNERS = tuple(Owner(f"owner-{n}", OwnerKind.EMBEDDED, "host", n, 1.0) for n in range(3))
REQUEST = Request("/w/demo.yaml", "demo", ("EURUSD",), ("5m",), None, None, 4, 42, 1)
PLAN = Plan({}, {}, "s", "d", "f", [], "/s", max_restarts=1)
RESULT = Result("/s/models/demo/v1", "ab" * 32, 4, 2, {})
FOUND = ResumedFrom(CheckpointType.PERIODIC, AT, 1, 0, True)

View = tuple[int, int | None]
"""What a client has read: the attempt, and the id of the latest good checkpoint."""


@dataclass(frozen=True)
class World:
    row: Operation
    held: tuple[Checkpoint, ...] = ()
    views: tuple[View, View] = ((0, None), (0, None))
    """Of the two clients."""
    drivers: tuple[int, ...] = ()
    """The attempts whose driver lives; nobody tells it that its attempt is over."""
    launched: tuple[int, ...] = ()
    expired: bool = False
    deleted: bool = False
    events: tuple[Event, ...] = field(default=(), compare=False)
    path: tuple[str, ...] = field(default=(), compare=False)

    def key(self) -> tuple[Any, ...]:
        row = self.row
        held = tuple((c.key, c.doomed_at is None, c.unusable) for c in self.held)
        views = tuple(sorted(self.views, key=repr))  # which of the two clients it is is all one
        return (
            *(row.status, row.phase, row.attempt, row.resumed_attempt, row.owner.id),
            *(row.restarts, row.last_failure, row.report_sequence, row.seed_checkpoint_id),
            *(row.cancel_requested_at is None, row.kill_requested_at is None),
            *(row.waiting_for, row.error, row.launch_not_before, held, views),
            *(self.drivers, self.launched, self.expired, self.deleted),
        )


Move = tuple[str, Callable[[World], Iterator[TransitionRecord | None]]]
"""A name and the steps of one transaction, each judged on the world that the last one left."""
Verb = Callable[..., Any]


@dataclass(frozen=True)
class Machine:
    """The transitions under search; a test swaps one for a broken one."""

    start: Verb = transitions.start
    launch: Verb = transitions.launch
    queue: Verb = transitions.queue
    wait: Verb = transitions.wait
    report: Verb = transitions.report
    commit: Verb = transitions.commit_checkpoint
    cancel: Verb = transitions.request_cancel
    kill: Verb = transitions.request_kill
    resume: Verb = transitions.try_resume
    delete_checkpoints: Verb = transitions.delete_checkpoints
    delete: Verb = transitions.delete
    complete: Verb = attempt_end.finish_completed
    stop: Verb = attempt_end.finish_stopped
    fail: Verb = attempt_end.finish_failed
    lose: Verb = attempt_end.lose
    lose_owner: Verb = attempt_end.lose_owner


class Broken(AssertionError):
    """A rule does not hold; the message has the moves that led there."""


def new(attempt: int, number: int) -> NewCheckpoint:
    path = f"operations/{ID}/attempt-{attempt:04d}/checkpoint-{number:06d}"
    return NewCheckpoint(number, path, number, 0, CheckpointType.PERIODIC, AT, 1, "ab", number == 1)


def search(machine: Machine, depth: int = DEPTH) -> dict[tuple[Any, ...], World]:
    """Return every world that can be reached; raise Broken at the first that must not be."""
    submitted = transitions.submit(ID, REQUEST, PLAN, OWNERS[0], "r", AT)
    first = World(submitted.after, events=(_event(0, submitted),))
    seen, edge = {first.key(): first}, [first]
    for _ in range(depth):
        reached: dict[tuple[Any, ...], World] = {}
        for world in edge:
            for after in _successors(machine, world):
                key = after.key()
                if key not in seen and key not in reached:
                    reached[key] = after
        seen |= reached
        edge = [world for world in reached.values() if world.row.attempt < MAX_ATTEMPT]
    return seen


def _successors(machine: Machine, world: World) -> Iterator[World]:
    yield from _happenings(world)
    if world.deleted:
        return
    for name, move in _moves(machine, world):
        after = replace(world, path=(*world.path, name))
        try:
            for step in move(after):
                if step is not None:
                    _check_step(after, name, step)
                    after = _applied(after, step)
                    _check_row(after)
        except KtrdrError:
            continue  # refused: a transaction changes all of it or nothing
        yield after


def _happenings(world: World) -> Iterator[World]:
    """What needs no transition: a driver dies, time passes, a client looks."""
    for attempt in world.drivers:
        left = tuple(a for a in world.drivers if a != attempt)
        yield replace(world, drivers=left, path=(*world.path, f"driver {attempt} dies"))
    if not world.row.status.terminal and not world.deleted:
        word = "is renewed" if world.expired else "expires"
        yield replace(world, expired=not world.expired, path=(*world.path, f"the lease {word}"))
    latest = latest_good_row(world.row.attempt, (), world.held)
    chosen = latest[1].id if latest and isinstance(latest[1], Checkpoint) else None
    for client, view in enumerate(world.views):
        if view != (world.row.attempt, chosen):
            views = list(world.views)
            views[client] = (world.row.attempt, chosen)
            path = (*world.path, f"client {client} looks")
            yield replace(world, views=(views[0], views[1]), path=path)


def _moves(machine: Machine, world: World) -> Iterator[Move]:
    for client in (0, 1):
        yield from _client(machine, world, client)
    yield from _owner(machine, world)
    for attempt in world.drivers:
        yield from _driver(machine, attempt)


def _client(m: Machine, world: World, client: int) -> Iterator[Move]:
    attempt, chosen = world.views[client]
    by = f"client {client}"

    def cancel(w: World) -> Iterator[TransitionRecord | None]:
        asked = m.cancel(w.row, attempt, f"c{client}", AT)
        yield asked
        row = asked.after if asked is not None else w.row
        if w.expired and row.cancel_requested_at and not row.status.terminal:
            yield m.lose_owner(row, AT)

    def resume(w: World) -> Iterator[TransitionRecord | None]:
        row = w.row
        if w.expired and not row.status.terminal:
            lost = m.lose_owner(row, AT)
            yield lost
            row = lost.after
        asked = Resumption(chosen or 0, OWNERS[1 + client], f"r{client}", FOUND, PLAN)
        yield m.resume(row, attempt, asked, w.held, AT)

    yield f"{by} cancels attempt {attempt}", cancel
    if chosen is not None:
        yield f"{by} resumes from checkpoint {chosen}", resume
    if client == 0:
        yield f"{by} kills", lambda w: iter([m.kill(w.row, attempt, "k", AT)])
        yield f"{by} deletes checkpoints", _judged(m.delete_checkpoints)
        yield f"{by} deletes", _judged(m.delete)


def _owner(m: Machine, world: World) -> Iterator[Move]:
    owner, current = world.row.owner.id, world.row.attempt
    yield "owner starts", lambda w: iter([m.start(w.row, owner, AT)])
    yield "owner launches", lambda w: iter([m.launch(w.row, current, owner, AFTER_BACK_OFF)])
    yield "owner waits", lambda w: iter([m.wait(w.row, current, owner, "1 CPU", AT)])
    yield "owner queues", lambda w: iter([m.queue(w.row, owner, "1 CPU", AT)])
    end = AttemptEnd(FailureReason.DRIVER_LOST, "gone", Adoption((new(current, 2),)))
    for attempt in {max(1, current - 1), current}:
        yield f"owner loses attempt {attempt}", _judged(m.lose, attempt, end)


def _driver(m: Machine, attempt: int) -> Iterator[Move]:
    by = f"driver {attempt}"
    for number in (1, 2):
        message = Report(number, Phase.TRAINING)
        yield f"{by} reports {number}", _judged(m.report, attempt, message)
        yield f"{by} commits {number}", _judged(m.commit, attempt, new(attempt, number))
    for kind in (StopKind.USER, StopKind.DRAIN):
        yield f"{by} stops ({kind})", _judged(m.stop, attempt, kind, Adoption((new(attempt, 2),)))
    for reason in (FailureReason.USER_ERROR, FailureReason.HUNG):
        yield f"{by} fails ({reason})", _judged(m.fail, attempt, AttemptEnd(reason, "it broke"))
    yield f"{by} completes", _judged(m.complete, attempt, RESULT, ("demo", 1))


def _judged(verb: Verb, *arguments: Any) -> Callable[[World], Iterator[TransitionRecord | None]]:
    """One transition, judged with the checkpoint rows."""
    return lambda world: iter([verb(world.row, *arguments, world.held, AT)])


def _applied(world: World, step: TransitionRecord) -> World:
    """What the store writes."""
    effects, attempt = step.effects, world.row.attempt
    rows = [
        *world.held,
        *(Checkpoint(100 * attempt + c.number, ID, attempt, **vars(c)) for c in effects.commit),
    ]
    flags = dict(effects.flag)
    held = tuple(
        replace(
            c,
            doomed_at=AT if c.key in effects.doom else c.doomed_at,
            unusable=flags.get(c.id, c.unusable),
        )
        for c in rows
    )
    begun = step.transition in (Transition.START, Transition.LAUNCH)
    own = (step.after.attempt,) if begun else ()
    return replace(
        world,
        row=step.after,
        held=held,
        drivers=(*world.drivers, *own),
        launched=(*world.launched, *own),
        expired=world.expired and step.transition is not Transition.TRY_RESUME,
        deleted=effects.delete,
        events=(*world.events, _event(len(world.events), step)) if step.recorded else world.events,
    )


def _event(id_: int, step: TransitionRecord) -> Event:
    after, name = step.after, str(step.event)
    return Event(id_, ID, after.attempt, name, after.status, step.at, step.details)


def _check_row(world: World) -> None:
    row = world.row
    rules = {
        "completed_at exactly in terminal": row.status.terminal == (row.completed_at is not None),
        "a phase exactly when running": (row.status is Status.RUNNING) == (row.phase is not None),
        "a lease exactly when owned": row.status.terminal == (row.lease_expires_at is None),
        "a result exactly when completed": (row.status is Status.COMPLETED)
        == (row.result is not None),
        "an error exactly when failed": (row.status is Status.FAILED) == (row.error is not None),
        "cancelled was requested": row.status is not Status.CANCELLED
        or row.cancel_requested_at is not None,
        "pending has no attempt": (row.status is Status.PENDING) <= (row.attempt == 0),
        "the budget holds": row.restarts <= row.plan.max_restarts,
        "a held back restart is one": row.launch_not_before is None or not row.status.terminal,
        "each attempt is launched once": len(set(world.launched)) == len(world.launched),
        "completed has no checkpoints": row.status is not Status.COMPLETED
        or all(c.doomed_at for c in world.held),
        "the row is the fold of its events": world.deleted
        or inconsistency(row, world.events) is None,
    }
    _refute(world, rules)


def _check_step(world: World, name: str, step: TransitionRecord) -> None:
    before, after, effects = world.row, step.after, step.effects
    terminal, resumed = before.status.terminal, step.transition is Transition.TRY_RESUME
    asked = before.cancel_requested_at is not None and not terminal
    ended = after.status in (Status.CANCELLED, Status.COMPLETED)
    kept = after.cancel_requested_at is not None and after.attempt == before.attempt
    writer = int(name.split()[1]) if name.startswith("driver") else before.attempt
    clearing = (Transition.COMPLETE, Transition.DELETE_CHECKPOINTS, Transition.DELETE)
    doomed = {c.key for c in world.held if c.doomed_at is not None}
    latest = latest_good_row(before.attempt, (), world.held)
    now = latest_good_row(before.attempt, effects.commit, world.held)
    superseded = latest is None or latest[0] not in effects.doom or now is None or now > latest
    chosen = {c.id: c for c in world.held}.get(after.seed_checkpoint_id or 0)
    rules = {
        "only a resume leaves an end": not terminal or after.status is before.status or resumed,
        "nothing leaves completed": before.status is not Status.COMPLETED or effects.delete,
        "attempts go up one by one": after.attempt - before.attempt in (0, 1),
        "only the current attempt writes": writer == before.attempt
        and (not name.startswith("driver") or before.status is Status.RUNNING),
        "a cancel is never lost": not asked
        or (ended if after.status.terminal else kept and after.status is before.status),
        "what is doomed is not doomed again or committed": not doomed & set(effects.doom)
        and not doomed & {(before.attempt, c.number) for c in effects.commit},
        "the latest good checkpoint stays": step.transition in clearing
        or latest is None
        or latest[0] not in effects.doom
        or (superseded and now is not None and now[0] not in effects.doom),
        "a resume starts from what stands": not resumed
        or (chosen is not None and chosen.doomed_at is None),
        "only what has ended is deleted": not effects.delete or terminal,
    }
    _refute(world, rules)


def _refute(world: World, rules: dict[str, bool]) -> None:
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise Broken(f"{'; '.join(broken)}: after {', '.join(world.path)}")


def test_every_order_of_moves_keeps_the_rules() -> None:
    worlds = search(Machine())
    assert len(worlds) > 5_000
    assert {world.row.status for world in worlds.values()} == set(Status)
    assert any(len(world.drivers) > 1 for world in worlds.values())
    assert any(world.deleted for world in worlds.values())
    for world in list(worlds.values())[::20]:
        assert all(text_of(event).isascii() for event in world.events)


def _forgetting_the_cancel(row: Operation, *rest: Any) -> TransitionRecord | None:
    return attempt_end.finish_failed(replace(row, cancel_requested_at=None), *rest)


def _without_a_fence(row: Operation, _attempt: int, *rest: Any) -> TransitionRecord | None:
    return transitions.report(row, row.attempt, *rest)


def _dooming_all(row: Operation, attempt: int, checkpoint: NewCheckpoint, *rest: Any) -> Any:
    step = transitions.commit_checkpoint(row, attempt, checkpoint, *rest)
    if step is None:
        return None
    standing = tuple(c.key for c in rest[0] if c.doomed_at is None)
    doom = (*standing, (attempt, checkpoint.number)) if standing else ()
    return replace(step, effects=replace(step.effects, doom=doom))


def _overwriting_an_end(row: Operation, attempt: int, *rest: Any) -> Any:
    living = replace(row, status=Status.RUNNING) if row.status.terminal else row
    return attempt_end.finish_completed(living, attempt, *rest)


def _of_what_it_is_now(row: Operation, _attempt: int, asked: Resumption, held: Any, at: Any) -> Any:
    every = tuple(replace(c, doomed_at=None) for c in held)
    return transitions.try_resume(row, row.attempt, asked, every, at)


def _of_the_living(row: Operation, held: Any, at: datetime) -> TransitionRecord:
    return replace(transitions.delete(replace(row, status=Status.FAILED), held, at), before=row)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ({"fail": _forgetting_the_cancel}, "a cancel is never lost"),
        ({"report": _without_a_fence}, "only the current attempt writes"),
        ({"commit": _dooming_all}, "the latest good checkpoint stays"),
        ({"complete": _overwriting_an_end}, "only a resume leaves an end"),
        ({"resume": _of_what_it_is_now}, "a resume starts from what stands"),
        ({"delete": _of_the_living}, "only what has ended is deleted"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_broken_transition_is_found(broken: dict[str, Verb], rule: str) -> None:
    with pytest.raises(Broken, match=rule):
        search(Machine(**broken))
