"""What people read of a resume: the short answer, the long one, and the words of a loss."""

from __future__ import annotations

from typing import Any

from ktrdr.cli.resume_view import resumed

SOURCE = {
    "checkpoint_type": "periodic",
    "created_at": "2026-01-02T03:04:05Z",
    "epoch": 4,
    "batch": 0,
    "exact": True,
    "differences": [],
}
RECORD = {"operation_id": "op", "status": "running", "attempt": 2, "resumed_from": SOURCE}
RESTORED = {
    "parts": ["weights", "random states"],
    "computed_anew": [],
    "history_rows": 4,
    "epoch": 4,
    "batch": 0,
}


def report(**changes: Any) -> dict[str, Any]:
    nothing = {"batches": 0, "epochs": 0, "reported": {"epoch": 4, "batch": 0}}
    plain = {"restored": RESTORED, "differences": [], "lost": nothing, "passed_over": []}
    return {**plain, **changes}


def test_the_short_answer_says_from_where_and_how_to_watch() -> None:
    assert resumed(RECORD, report(), verbose=False).splitlines() == [
        "resumed        op",
        "status         running, attempt 2",
        "from           epoch 4, batch 0 (periodic checkpoint) of 2026-01-02T03:04:05Z, exact",
        "watch it with  ktrdr operations watch op",
    ]


def test_the_long_answer_of_an_exact_resume() -> None:
    assert resumed(RECORD, report(), verbose=True).splitlines()[4:] == [
        "restored       weights, random states, 4 epochs of history",
        "goes on in     epoch 5, after 0 batches of it",
        "differs        nothing: the model will be the same, bit for bit",
        "lost           nothing that was reported",
    ]


def test_what_was_lost_is_counted_or_said_to_be_unknown() -> None:
    lost = {"batches": 27, "epochs": 2, "reported": {"epoch": 6, "batch": 3}}
    assert (
        "lost           27 batches, 2 finished epochs among them, to be done again:"
        " epoch 6, batch 3 was reported last"
    ) in resumed(RECORD, report(lost=lost), verbose=True)
    unknown = {"batches": None, "epochs": None, "reported": None}
    assert "unknown" in resumed(RECORD, report(lost=unknown), verbose=True)


def test_a_damaged_checkpoint_is_told_of_even_shortly() -> None:
    bad = {**SOURCE, "epoch": 5, "checkpoint_type": "cancellation", "why": "model.pt is wrong"}
    shown = resumed(RECORD, report(passed_over=[bad]), verbose=False).splitlines()
    assert shown[-1] == (
        "passed over    epoch 5, batch 0 (cancellation checkpoint): model.pt is wrong"
    )
