"""What people see of operations: rows, fields and the line of progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ktrdr.cli import render
from ktrdr.operations.ids import short_id

Record = Mapping[str, Any]


def operations(records: Sequence[Record]) -> str:
    """One line for each: 80 columns hold it, a wider terminal shows more of names and data."""
    headers = ("ID", "STATUS", "PROGRESS", "STRATEGY", "DATA", "CREATED")
    rows = [
        (
            short_id(r["operation_id"]),
            status(r),
            _listed_progress(r),
            r["request"]["strategy_name"],
            _data(r["request"]),
            render.day_and_time(r["created_at"]),
        )
        for r in records
    ]
    if not rows:
        return "no operations; start one with: ktrdr train"
    return render.table(headers, rows, cut=("STRATEGY", "DATA"))


def status(record: Record) -> str:
    """The status; `lost` where no process looks after one that has not ended."""
    return "lost" if record["lost"] else str(record["status"])


def stopped_early(record: Record) -> str | None:
    """What early stopping left out; None where it did not end the training."""
    result = record["result"]
    if result is None or not result["stopped_early"]:
        return None
    return f"stopped early after {result['epochs']} of {record['request']['epochs']}"


def operation(record: Record) -> str:
    request, result, error = record["request"], record["result"], record["error"]
    pairs = [
        ("operation", record["operation_id"]),
        ("status", _long_status(record)),
        ("phase", record["phase"]),
        ("waiting for", record["waiting_for"]),
        ("attempt", record["attempt"]),
        ("owner", _owner(record["owner"])),
        ("strategy", f"{request['strategy_name']} ({request['strategy_path']})"),
        ("data", _data(request)),
        ("dates", _dates(request)),
        ("fold", request["fold"]),
        ("seed", request["seed"]),
        ("progress", stopped_early(record) or _progress(record["progress"])),
        ("created", record["created_at"]),
        ("started", record["started_at"]),
        ("ended", record["completed_at"]),
        ("cancel requested", record["cancel_requested_at"]),
        ("checkpoint", _checkpoint(record["checkpoint"])),
        ("resumed from", resumed_from(record["resumed_from"])),
        ("error", error and f"{error['message']} ({error['reason'] or error['code']})"),
    ]
    warned = [("warning", _warning(warning)) for warning in record["warnings"]]
    return render.fields(pairs + warned + (_result(result) if result else []))


def folds(records: Sequence[Record], summary: Record) -> str:
    """Fold by fold how it ended, then every metric over the completed ones."""
    rows = [
        (
            r["request"]["fold"],
            short_id(r["operation_id"]),
            r["status"],
            (r["result"] or {}).get("best_epoch"),
        )
        for r in records
    ]
    ended = render.table(("FOLD", "ID", "STATUS", "BEST EPOCH"), rows)
    figures = [
        (
            name,
            *(render.number(found[key]) for key in ("mean", "std", "min", "max")),
            found["folds"],
        )
        for name, found in summary["metrics"].items()
    ]
    if not figures:
        return ended
    headers = ("METRIC", "MEAN", "STD", "MIN", "MAX", "FOLDS")
    return f"{ended}\n\n{render.table(headers, figures)}"


def events(items: Sequence[Record]) -> str:
    rows = [(e["at"], e["event"], e["status"], e["attempt"], _brief(e["details"])) for e in items]
    return render.table(("AT", "EVENT", "STATUS", "ATTEMPT", "DETAILS"), rows)


def explanation(why: Record) -> str:
    rows = [(link["at"], link["attempt"], link["text"]) for link in why["chain"]]
    told = render.table(("AT", "ATTEMPT", "WHAT"), rows)
    return f"{why['operation_id']} is {_long_status(why)}\n\n{told}\n\nnext: {why['next']}"


def history(rows: Sequence[Record]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not rows:
        return "no epoch has finished yet"
    return render.table(
        [name.upper() for name in names],
        [[render.number(row.get(name)) for name in names] for row in rows],
    )


def progress_line(record: Record) -> str:
    """Where a training stands, in one line."""
    fold = record["request"]["fold"]
    line = _progress_line(record)
    return line if fold is None else f"fold {fold}: {line}"


def _progress_line(record: Record) -> str:
    if record["lost"]:
        return "lost: no live process"
    if record["status"] == "completed":
        return stopped_early(record) or "completed"
    progress = record["progress"]
    if progress is None or record["phase"] not in ("training", "saving", "stopping"):
        return _phase(record)
    metrics = progress["metrics"] or {}
    parts = [
        _progress(progress),
        _loss(metrics),
        _metric("accuracy", metrics.get("train_accuracy"), ".1%"),
        _metric("sign agreement", metrics.get("train_sign_agreement"), ".1%"),
        _best(metrics),
        _metric("val_loss", metrics.get("val_loss"), ".4g"),
        _metric("val_accuracy", metrics.get("val_accuracy"), ".1%"),
        _metric("val_sign_agreement", metrics.get("val_sign_agreement"), ".1%"),
        _rate(metrics),
        record["phase"] if record["phase"] == "stopping" else None,
    ]
    return "  ".join(part for part in parts if part)


def _phase(record: Record) -> str:
    phase = str(record["phase"] or "waiting to start").replace("_", " ")
    waiting_for = record["waiting_for"]
    return f"{phase}: {waiting_for}" if waiting_for else phase


def _loss(metrics: Record) -> str | None:
    """The mean over the batches of this epoch so far, else that of the last epoch."""
    running = metrics.get("running_loss")
    return _metric("loss", metrics.get("train_loss") if running is None else running, ".4g")


def _best(metrics: Record) -> str | None:
    epoch, score = metrics.get("best_epoch"), metrics.get("best_score")
    if not epoch or score is None:
        return None
    return f"best {metrics.get('monitor') or ''} {score:.4g} @{epoch}".replace("  ", " ")


def _rate(metrics: Record) -> str | None:
    rate = metrics.get("batches_per_s")
    return None if rate is None else f"{rate:.3g} batches/s"


def _long_status(record: Record) -> str:
    return "lost: no live process" if record["lost"] else str(record["status"])


def _warning(warning: Record) -> str:
    count = warning.get("count", 1)
    return f"{warning['message']} ({count} times)" if count > 1 else str(warning["message"])


def _listed_progress(record: Record) -> str | None:
    progress, result = record["progress"], record["result"]
    if result is not None:
        early = result["stopped_early"]
        epochs = record["request"]["epochs"]
        return f"stopped early {result['epochs']}/{epochs}" if early else f"{epochs}/{epochs} 100%"
    if record["status"] == "running" and not record["lost"] and record["phase"] != "training":
        return _phase(record)
    return f"{progress['epoch']}/{progress['epochs']} {_percent(progress)}" if progress else None


def _result(result: Record) -> list[tuple[str, Any]]:
    return [
        ("model", result["model_path"]),
        ("weights digest", result["weights_digest"]),
        ("epochs", f"{result['epochs']}, best {result['best_epoch']}"),
        *render.nested(result["metrics"]),
    ]


def _metric(word: str, value: float | None, form: str) -> str | None:
    return None if value is None else f"{word} {value:{form}}"


def _progress(progress: Record | None) -> str | None:
    if progress is None:
        return None
    batch = f"  batch {progress['batch']}/{progress['batches']}" if progress["batches"] else ""
    return f"epoch {progress['epoch']}/{progress['epochs']}{batch}  {_percent(progress)}"


def _percent(progress: Record) -> str:
    return f"{progress['percent']:.1f}%"


def _data(request: Record) -> str:
    return f"{','.join(request['symbols'])} {','.join(request['timeframes'])}"


def _dates(request: Record) -> str | None:
    start, end = request["start_date"], request["end_date"]
    return f"{start or 'the first bar'} .. {end or 'the last bar'}" if start or end else None


def _owner(owner: Record | None) -> str | None:
    if owner is None:
        return None
    alive = {True: ", alive", False: ", no live process", None: ""}[owner["alive"]]
    return f"{owner['kind']} on {owner['host']}, pid {owner['pid']}{alive}"


def _checkpoint(checkpoint: Record | None) -> str | None:
    if checkpoint is None:
        return None
    return f"{place(checkpoint)}: {checkpoint['path']}"


def resumed_from(source: Record | None) -> str | None:
    if source is None:
        return None
    exact = "exact" if source["exact"] else "not exact: " + "; ".join(source["differences"])
    return f"{place(source)} of {source['created_at']}, {exact}"


def place(at: Record) -> str:
    return f"epoch {at['epoch']}, batch {at['batch']} ({at['checkpoint_type']} checkpoint)"


def _brief(details: Record) -> str:
    return "  ".join(
        f"{name}={value}" for name, value in render.nested(details) if value is not None
    )
