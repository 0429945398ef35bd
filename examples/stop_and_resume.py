"""Train straight; train again, stop half-way, resume: both models have the same digest.

python examples/stop_and_resume.py STRATEGY
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from ktrdr import Client, Operation

EPOCHS = 60


def main(strategy: str) -> int:
    with Client() as client:
        straight = client.train(strategy, epochs=EPOCHS)
        first = straight.wait(timeout=300)["result"]
        print(f"straight:            {first['weights_digest']}")

        operation = client.train(strategy, epochs=EPOCHS)
        stopped = stop_half_way(operation)
        checkpoint = stopped["checkpoint"]
        print(
            f"stopped at {stopped['progress']['percent']:.0f} %:     "
            f"{stopped['status']} in epoch {checkpoint['epoch'] + 1}, batch {checkpoint['batch']}"
        )
        operation.resume()
        second = operation.wait(timeout=300)["result"]
        print(f"stopped and resumed: {second['weights_digest']}")

    equal = first == second | {"model_path": first["model_path"]}
    print("equal: the same model, bit for bit" if equal else "DIFFERENT: this must not happen")
    return 0 if equal else 1


def stop_half_way(operation: Operation) -> dict[str, Any]:
    cancelled = threading.Event()

    def watch(record: dict[str, Any]) -> None:
        progress = record["progress"]
        if progress and progress["percent"] >= 50 and not cancelled.is_set():
            cancelled.set()
            operation.cancel()

    return operation.wait(timeout=300, on_record=watch)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
