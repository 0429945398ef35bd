"""What people see of a resume: from where it goes on, and what was lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ktrdr.cli import render
from ktrdr.cli.operation_views import place, resumed_from

Record = Mapping[str, Any]


def resumed(record: Record, report: Record, verbose: bool) -> str:
    """The first answer of a resume: that it worked, from where, and how to watch it.

    `report` is what its event says; a damaged checkpoint is told of in any case.
    """
    source, name = record["resumed_from"], record["operation_id"]
    pairs = [
        ("resumed", name),
        ("status", f"{record['status']}, attempt {record['attempt']}"),
        ("from", resumed_from(source)),
        ("watch it with", f"ktrdr operations watch {name}"),
    ]
    passed = [("passed over", f"{place(bad)}: {bad['why']}") for bad in report["passed_over"]]
    return render.fields(pairs + (_resume_report(report) if verbose else []) + passed)


def _resume_report(report: Record) -> list[tuple[str, Any]]:
    restored = report["restored"]
    rows = restored["history_rows"]
    parts = [*restored["parts"], f"{rows} epoch{'' if rows == 1 else 's'} of history"]
    differing = report["differences"] or ["nothing: the model will be the same, bit for bit"]
    return [
        ("restored", ", ".join(parts)),
        ("recomputed", ", ".join(restored["computed_anew"]) or None),
        ("goes on in", f"epoch {restored['epoch'] + 1}, after {restored['batch']} batches of it"),
        *(("differs", difference) for difference in differing),
        ("lost", _lost(report["lost"])),
    ]


def _lost(lost: Record) -> str:
    if lost["batches"] is None:
        return "unknown: nothing was reported after the checkpoint"
    if lost["batches"] == 0:
        return "nothing that was reported"
    at = lost["reported"]
    epochs = f", {lost['epochs']} finished epochs among them" if lost["epochs"] else ""
    return (
        f"{lost['batches']} batches{epochs}, to be done again: epoch {at['epoch']},"
        f" batch {at['batch']} was reported last"
    )
