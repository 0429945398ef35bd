"""Train straight; train again, stop half-way, resume: both models have the same digest.

python examples/stop_and_resume.py STRATEGY
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from ktrdr import Client, Operation

EPOCHS = 60
SAY_EVERY_S = 4.0

Record = dict[str, Any]


def main(strategy: str) -> int:
    with Client() as client:
        straight = client.train(strategy, epochs=EPOCHS)
        first = straight.wait(timeout=300, on_record=progress("training"))["result"]
        print(f"straight:            {first['weights_digest']}")

        operation = client.train(strategy, epochs=EPOCHS)
        stopped = stop_half_way(operation)
        checkpoint = stopped["checkpoint"]
        print(
            f"stopped at {stopped['progress']['percent']:.0f} %:     "
            f"{stopped['status']} in epoch {checkpoint['epoch'] + 1}, batch {checkpoint['batch']}"
        )
        operation.resume()
        second = operation.wait(timeout=300, on_record=progress("resumed"))["result"]
        print(f"stopped and resumed: {second['weights_digest']}")

    equal = first == second | {"model_path": first["model_path"]}
    print("equal: the same model, bit for bit" if equal else "DIFFERENT: this must not happen")
    print(accuracy(second["metrics"]))
    return 0 if equal else 1


def stop_half_way(operation: Operation) -> Record:
    say = progress("training again")

    def watch(record: Record) -> None:
        say(record)
        done = record["progress"]
        if done and done["percent"] >= 50 and not record["cancel_requested_at"]:
            operation.cancel()

    return operation.wait(timeout=300, on_record=watch)


def progress(what: str) -> Callable[[Record], None]:
    """Print where a training stands, every few seconds."""
    said_at = 0.0

    def say(record: Record) -> None:
        nonlocal said_at
        if time.monotonic() - said_at < SAY_EVERY_S:
            return
        said_at = time.monotonic()
        done, phase = record["progress"], record["phase"] or "waiting for the cluster"
        at = f"epoch {done['epoch']}/{done['epochs']}" if phase == "training" and done else phase
        print(f"  {what}: {at.replace('_', ' ')}", flush=True)

    return say


def accuracy(metrics: Record) -> str:
    """The test accuracy beside that of a model which always says the most frequent class."""
    rows = [sum(row) for row in metrics["confusion_matrix"]]
    majority = max(rows) / sum(rows)
    return (
        f"test accuracy {metrics['test_accuracy']:.3f}, always the most frequent class:"
        f" {majority:.3f} (random bars: nothing can be learned from them)"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
