"""What sixteen processes do to the same operations at once could have happened one by one.

Every call is recorded with the time it was made, the time it was answered, and its answer. For
each operation an order is then searched for that agrees with those times and in which a small
sequential model gives the same answers (Wing and Gong 1993, with Lowe's memory of dead ends).
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from store_bench import (
    SHARED_STORES,
    checkpoint,
    in_processes,
    opened,
    resumption,
)

from ktrdr.errors import KtrdrError
from ktrdr.operations import lease
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import FailureReason, Operation, Status, StopKind, TrainingWarning
from ktrdr.store import open_store

NUM_CLIENTS = 16
NUM_GROUPS = {"sqlite": 21, "postgres": 6}
"""Of operations that are acted upon at the same time."""
GROUP = 4
NUM_CALLS = 6
"""Of each client on each operation, on average: 16 * 27 * 4 * 6 = 10,368 in all."""
SEED = 20_260_102


@dataclass(frozen=True)
class State:
    status: str = "running"
    attempt: int = 1
    cancel: bool = False
    resumed: int = 0

    @property
    def answer(self) -> str:
        return f"{self.status} {self.attempt} {self.cancel}"


@dataclass(frozen=True)
class Call:
    verb: str
    attempt: int
    """As the caller believes."""
    asked_at: float
    answered_at: float
    answer: str


def step(state: State, verb: str, attempt: int) -> tuple[State, str]:
    """The sequential model: the state that follows, and the answer."""
    if verb == "get":
        return state, state.answer
    if verb == "cancel":
        return _cancel(state, attempt)
    if verb == "resume":
        return _resume(state, attempt)
    done = {"stop": "cancelled", "fail": "failed"}.get(verb)
    if state.attempt == attempt and state.status == done:
        return state, state.answer
    if state.attempt == attempt and verb == "drain" and state.status == "cancelled":
        return state, state.answer
    if state.attempt != attempt:
        return state, "STALE_ATTEMPT"
    if state.status != "running":
        return state, "ILLEGAL_TRANSITION"
    after = _ended(state, verb)
    return after, "done" if verb == "warn" else after.answer


def _ended(state: State, verb: str) -> State:
    if verb == "warn":
        return state
    if verb == "stop" or state.cancel:
        return replace(state, status="cancelled", cancel=True)
    if verb == "fail":
        return replace(state, status="failed")
    return replace(state, attempt=state.attempt + 1)


def _cancel(state: State, attempt: int) -> tuple[State, str]:
    if state.status == "failed":
        return state, "OPERATION_NOT_CANCELLABLE"
    if state.status == "cancelled":
        return state, state.answer
    if not state.resumed <= attempt <= state.attempt:
        return state, "STALE_ATTEMPT"
    after = replace(state, cancel=True)
    return after, after.answer


def _resume(state: State, attempt: int) -> tuple[State, str]:
    if state.status == "running" or state.attempt != attempt:
        return state, "OPERATION_NOT_RESUMABLE"
    after = State("running", state.attempt + 1, False, state.attempt + 1)
    return after, after.answer


def linearizable(calls: Sequence[Call]) -> bool:
    """Say whether some order of the calls explains all answers."""
    calls = sorted(calls, key=lambda c: c.asked_at)
    dead: set[tuple[int, State]] = set()
    todo = [((1 << len(calls)) - 1, State())]
    while todo:
        left, state = todo.pop()
        if not left:
            return True
        if (left, state) in dead:
            continue
        dead.add((left, state))
        for index in _next(calls, left):
            call = calls[index]
            after, answer = step(state, call.verb, call.attempt)
            if answer == call.answer:
                todo.append((left & ~(1 << index), after))
    return False


def _next(calls: Sequence[Call], left: int) -> list[int]:
    """The calls that may come first: made before any other of those left was answered."""
    found: list[int] = []
    earliest = float("inf")
    index = (left & -left).bit_length() - 1
    while index < len(calls) and calls[index].asked_at <= earliest:
        if left >> index & 1:
            found.append(index)
            earliest = min(earliest, calls[index].answered_at)
        index += 1
    return found


VERBS = ("get", "cancel", "cancel", "resume", "resume", "resume", "stop", "fail", "drain", "warn")


def _make(service: OperationsService, name: str, verb: str, attempt: int, tag: str) -> str:
    kinds = {"stop": StopKind.USER, "drain": StopKind.DRAIN}
    row: Operation | None = None
    try:
        if verb == "get":
            row = service.get(name)
        elif verb == "cancel":
            row = service.request_cancel(name, attempt, tag)
        elif verb == "resume":
            [first] = [c for c in service.checkpoints(name) if c.is_best]
            row = service.try_resume(name, attempt, resumption(first.id, tag, tag))
        elif verb in kinds:
            row = service.finish_stopped(name, attempt, kinds[verb])
        elif verb == "fail":
            row = service.finish_failed(name, attempt, FailureReason.USER_ERROR, tag)
        else:
            service.warn(name, attempt, TrainingWarning("TAG", tag))
    except KtrdrError as error:
        return error.code
    return "done" if row is None else _state_of(row).answer


def _state_of(row: Operation) -> State:
    return State(row.status.value, row.attempt, row.cancel_requested_at is not None)


def _believed(answer: str, before: int) -> int:
    return int(answer.split()[1]) if " " in answer else before


def _act(url: str, names: Sequence[str], client: int, seed: int) -> str:
    """One client's calls as JSON: it looks first, then acts on what it was told last."""
    draw = random.Random(seed * 1000 + client)
    store = open_store(url)
    service = OperationsService(store)
    recorded: list[tuple[str, str, int, float, float, str]] = []
    for first in range(0, len(names), GROUP):
        group = names[first : first + GROUP]
        seen = dict.fromkeys(group, 1)
        for number in range(NUM_CALLS * GROUP):
            name, verb = draw.choice(group), draw.choice(VERBS)
            attempt, tag = seen[name], f"{client}-{first}-{number}"
            asked_at = time.monotonic()  # one clock for all processes of a machine
            answer = _make(service, name, verb, attempt, tag)
            recorded.append((name, verb, attempt, asked_at, time.monotonic(), answer))
            late = answer in ("STALE_ATTEMPT", "OPERATION_NOT_RESUMABLE")
            seen[name] = attempt + 1 if late else _believed(answer, attempt)
    store.close()
    return json.dumps(recorded)


@pytest.mark.parametrize("kind", SHARED_STORES)
def test_concurrent_histories_are_linearizable(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 3600.0)  # on a busy machine none may expire meanwhile
    num_operations = NUM_GROUPS[kind] * GROUP
    with opened(kind, tmp_path) as bench:
        rows = [bench.running(f"r{n}") for n in range(num_operations)]
        for row in rows:
            new = checkpoint(row, 1, is_best=True)
            bench.service.commit_checkpoint(row.operation_id, 1, new)
        names = [row.operation_id for row in rows]
        bench.store.close()
        told = in_processes(NUM_CLIENTS, lambda n: _act(bench.url, names, n, SEED))
        histories: dict[str, list[Call]] = defaultdict(list)
        for client in told:
            for name, *call in json.loads(client):
                histories[name].append(Call(*call))
        answers = [call.answer for calls in histories.values() for call in calls]
        assert len(answers) == NUM_CLIENTS * num_operations * NUM_CALLS
        assert {"STALE_ATTEMPT", "ILLEGAL_TRANSITION", "OPERATION_NOT_RESUMABLE"} <= set(answers)
        for name, calls in histories.items():
            assert linearizable(calls), f"{name}, seed {SEED}: {sorted(calls, key=_asked)}"
            assert bench.service.inconsistency(name) is None
        assert {row.status for row in bench.service.list()[0]} <= {*Status} - {Status.PENDING}


def _asked(call: Call) -> float:
    return call.asked_at


def test_the_checker_refuses_what_cannot_have_happened() -> None:
    stop = Call("stop", 1, 0.0, 1.0, "cancelled 1 True")
    won = Call("resume", 1, 2.0, 5.0, "running 2 False")
    lost = Call("resume", 1, 3.0, 4.0, "OPERATION_NOT_RESUMABLE")
    late = Call("get", 1, 6.0, 7.0, "cancelled 1 True")
    early = Call("get", 1, 2.5, 7.0, "cancelled 1 True")
    assert linearizable([stop, won, lost])
    assert linearizable([stop, won, early])
    assert not linearizable([stop, won, late])
    assert not linearizable([stop, won, replace(won, asked_at=2.5)])
    assert not linearizable([stop, replace(lost, answered_at=3.5), replace(won, asked_at=3.6)])
