"""An attempt of a verification whose resume forgets a part of the state.

Arguments: the part, then those of `ktrdr.usecases.verify_resume.attempt`.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from ktrdr.training.learner import Learner
from ktrdr.usecases.verify_resume import attempt

_restore = Learner.restore


def main(part: str, *arguments: str) -> int:
    def restore(learner: Learner, *given: Any, **named: Any) -> None:
        _restore(learner, *given, **named)
        if part == "random_state":
            torch.manual_seed(1)
        elif part == "optimizer":
            learner.optimizer.state.clear()
        else:
            raise ValueError(f"cannot restore {part}")

    Learner.restore = restore  # type: ignore[method-assign, assignment]
    return attempt.main(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
