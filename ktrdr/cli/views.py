"""What people see of a record: rows and fields made of the same documents that `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ktrdr.cli import render

Record = Mapping[str, Any]


def operations(records: Sequence[Record]) -> str:
    headers = ("OPERATION", "STATUS", "PHASE", "PROGRESS", "STRATEGY", "DATA", "CREATED")
    rows = [
        (
            r["operation_id"],
            r["status"],
            r["phase"],
            _percent(r["progress"]),
            r["request"]["strategy_name"],
            _data(r["request"]),
            r["created_at"],
        )
        for r in records
    ]
    return render.table(headers, rows) if rows else "no operations; start one with: ktrdr train"


def operation(record: Record) -> str:
    request, result, error = record["request"], record["result"], record["error"]
    pairs = [
        ("operation", record["operation_id"]),
        ("status", record["status"]),
        ("phase", record["phase"]),
        ("attempt", record["attempt"]),
        ("owner", _owner(record["owner"])),
        ("strategy", f"{request['strategy_name']} ({request['strategy_path']})"),
        ("data", _data(request)),
        ("dates", _dates(request)),
        ("fold", request["fold"]),
        ("seed", request["seed"]),
        ("progress", _progress(record["progress"])),
        ("created", record["created_at"]),
        ("started", record["started_at"]),
        ("ended", record["completed_at"]),
        ("cancel requested", record["cancel_requested_at"]),
        ("checkpoint", _checkpoint(record["checkpoint"])),
        ("resumed from", _resumed_from(record["resumed_from"])),
        ("error", error and f"{error['message']} ({error['reason'] or error['code']})"),
    ]
    return render.fields(pairs + (_result(result) if result else []))


def folds(records: Sequence[Record], summary: Record) -> str:
    """Fold by fold how it ended, then every metric over the completed ones."""
    rows = [
        (
            r["request"]["fold"],
            r["operation_id"],
            r["status"],
            (r["result"] or {}).get("best_epoch"),
        )
        for r in records
    ]
    ended = render.table(("FOLD", "OPERATION", "STATUS", "BEST EPOCH"), rows)
    figures = [
        (name, *(_number(found[key]) for key in ("mean", "std", "min", "max")), found["folds"])
        for name, found in summary["metrics"].items()
    ]
    if not figures:
        return ended
    headers = ("METRIC", "MEAN", "STD", "MIN", "MAX", "FOLDS")
    return f"{ended}\n\n{render.table(headers, figures)}"


def resumed(record: Record, report: Record, verbose: bool) -> str:
    """The first answer of a resume: that it worked, from where, and how to watch it.

    `report` is what its event says; a damaged checkpoint is told of in any case.
    """
    source, name = record["resumed_from"], record["operation_id"]
    pairs = [
        ("resumed", name),
        ("status", f"{record['status']}, attempt {record['attempt']}"),
        ("from", _resumed_from(source)),
        ("watch it with", f"ktrdr operations watch {name}"),
    ]
    passed = [("passed over", f"{_place(bad)}: {bad['why']}") for bad in report["passed_over"]]
    return render.fields(pairs + (_resume_report(report) if verbose else []) + passed)


def events(items: Sequence[Record]) -> str:
    rows = [(e["at"], e["event"], e["status"], e["attempt"], _brief(e["details"])) for e in items]
    return render.table(("AT", "EVENT", "STATUS", "ATTEMPT", "DETAILS"), rows)


def explanation(why: Record) -> str:
    rows = [(link["at"], link["attempt"], link["text"]) for link in why["chain"]]
    told = render.table(("AT", "ATTEMPT", "WHAT"), rows)
    return f"{why['operation_id']} is {why['status']}\n\n{told}\n\nnext: {why['next']}"


def history(rows: Sequence[Record]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not rows:
        return "no epoch has finished yet"
    return render.table(
        [name.upper() for name in names],
        [[_number(row.get(name)) for name in names] for row in rows],
    )


def checkpoints(items: Sequence[Record]) -> str:
    headers = ("OPERATION", "EPOCH", "BATCH", "TYPE", "CREATED", "SIZE", "PATH", "REMARK")
    rows = [
        (
            c["operation_id"],
            c["epoch"],
            c["batch"],
            c["checkpoint_type"],
            c["created_at"],
            f"{c['size_bytes']:,}",
            c["path"],
            c.get("unusable") or ("best" if c.get("is_best") else None),
        )
        for c in items
    ]
    return render.table(headers, rows) if rows else "no checkpoints"


def verified(items: Sequence[Record]) -> str:
    """Every file of every checkpoint, one a line."""
    headers = ("CHECKPOINT", "EPOCH", "BATCH", "FILE", "STATE")
    rows = [
        (
            f"attempt {c['attempt']}, number {c['number']}",
            c["epoch"],
            c["batch"],
            c["path"] if file["name"] == "." else file["name"],
            f"wrong: {file['detail']}" if file["detail"] else file["state"],
        )
        for c in items
        for file in c["files"]
    ]
    return render.table(headers, rows) if rows else "no checkpoints"


def cleanup(done: Record) -> str:
    expired, removed = len(done["expired"]), done["removed"]
    said = f"removed {removed} checkpoints"
    said += f", expired those of {expired} operations" if expired else ""
    rows = [(o["path"], o["what"], "removed" if o["removed"] else None) for o in done["orphans"]]
    return f"{said}\n\n{render.table(('FOLDER', 'WHAT', 'REMARK'), rows)}" if rows else said


def models(items: Sequence[Record]) -> str:
    headers = ("MODEL", "OPERATION", "COMPLETED", "WEIGHTS", "PATH")
    rows = [
        (
            f"{m['name']}@v{m['version']}",
            m["operation_id"],
            m["completed_at"],
            str(m["weights_digest"])[:12],
            m["path"],
        )
        for m in items
    ]
    return render.table(headers, rows) if rows else "no models; make one with: ktrdr train"


def rules(items: Sequence[Record], total: int) -> str:
    headers = ("WEIGHT", "SUPPORT", "RULE", "STRONGEST INPUTS")
    rows = [
        (
            f"{r['weight']:.3f}",
            f"{r['support']:.1%}",
            r["text"],
            ", ".join(f"{name} {change:+.3g}" for name, change in r["strongest"].items()),
        )
        for r in items
    ]
    table = render.table(headers, rows)
    return table if len(rows) == total else f"{table}\n{len(rows)} of {total} rules"


def bars(items: Sequence[Record]) -> str:
    headers = ("SYMBOL", "TIMEFRAME", "ROWS", "FIRST", "LAST", "SOURCE", "REMARK")
    rows = [
        (
            b["symbol"],
            b["timeframe"],
            f"{b['rows']:,}",
            b["first"],
            b["last"],
            b["source"],
            b["problem"] or b["imported_from"],
        )
        for b in items
    ]
    return render.table(headers, rows) if rows else "no bars; import some with: ktrdr data import"


def nodes(items: Sequence[Record]) -> str:
    headers = ("NODE", "ADDRESS", "HOST", "ALIVE", "HEAD", "CPUS", "GPUS")
    keys = ("node_id", "address", "host", "alive", "head", "cpus", "gpus")
    return render.table(headers, [[node[key] for key in keys] for node in items])


def strategies(items: Sequence[Record]) -> str:
    rows = [(s["path"], s["name"], s["error"] or s["description"]) for s in items]
    if not rows:
        return "no strategies/*.yaml below this folder"
    return render.table(("FILE", "NAME", "REMARK"), rows)


def progress_line(record: Record, best: Record | None) -> str:
    """Where a training stands, in one line; `best` is the history row of the best epoch so far."""
    fold = record["request"]["fold"]
    line = _progress_line(record, best)
    return line if fold is None else f"fold {fold}: {line}"


def _progress_line(record: Record, best: Record | None) -> str:
    progress = record["progress"]
    if progress is None or record["phase"] not in ("training", "saving", "stopping"):
        return str(record["phase"] or "waiting to start").replace("_", " ")
    metrics = progress["metrics"] or {}
    parts = [
        _progress(progress),
        _metric("loss", metrics.get("train_loss"), ".4g"),
        _metric("accuracy", metrics.get("train_accuracy"), ".1%"),
        _metric("sign agreement", metrics.get("train_sign_agreement"), ".1%"),
        best and f"best {best['val_loss']:.4g} @{best['epoch']}",
        _metric("val_loss", metrics.get("val_loss"), ".4g"),
        _metric("val_accuracy", metrics.get("val_accuracy"), ".1%"),
        _metric("val_sign_agreement", metrics.get("val_sign_agreement"), ".1%"),
        record["phase"] if record["phase"] == "stopping" else None,
    ]
    return "  ".join(part for part in parts if part)


def nested(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """A document as dotted names and values."""
    if isinstance(value, Mapping):
        inner = [nested(v, f"{name}.{k}" if name else str(k)) for k, v in value.items()]
        return [pair for pairs in inner for pair in pairs]
    return [(name, _number(value))]


def _result(result: Record) -> list[tuple[str, Any]]:
    return [
        ("model", result["model_path"]),
        ("weights digest", result["weights_digest"]),
        ("epochs", f"{result['epochs']}, best {result['best_epoch']}"),
        *nested(result["metrics"]),
    ]


def _metric(word: str, value: float | None, form: str) -> str | None:
    return None if value is None else f"{word} {value:{form}}"


def _percent(progress: Record | None) -> str | None:
    return f"{progress['percent']:.1f}%" if progress else None


def _progress(progress: Record | None) -> str | None:
    if progress is None:
        return None
    batch = f"  batch {progress['batch']}/{progress['batches']}" if progress["batches"] else ""
    return f"epoch {progress['epoch']}/{progress['epochs']}{batch}  {progress['percent']:.1f}%"


def _data(request: Record) -> str:
    return f"{','.join(request['symbols'])} {','.join(request['timeframes'])}"


def _dates(request: Record) -> str | None:
    start, end = request["start_date"], request["end_date"]
    return f"{start or 'the first bar'} .. {end or 'the last bar'}" if start or end else None


def _owner(owner: Record | None) -> str | None:
    if owner is None:
        return None
    alive = {True: ", alive", False: ", gone", None: ""}[owner["alive"]]
    return f"{owner['kind']} on {owner['host']}, pid {owner['pid']}{alive}"


def _checkpoint(checkpoint: Record | None) -> str | None:
    if checkpoint is None:
        return None
    return f"{_place(checkpoint)}: {checkpoint['path']}"


def _resumed_from(source: Record | None) -> str | None:
    if source is None:
        return None
    exact = "exact" if source["exact"] else "not exact: " + "; ".join(source["differences"])
    return f"{_place(source)} of {source['created_at']}, {exact}"


def _resume_report(report: Record) -> list[tuple[str, Any]]:
    restored = report["restored"]
    rows = restored["history_rows"]
    parts = [*restored["parts"], f"{rows} epoch{'' if rows == 1 else 's'} of history"]
    differing = report["differences"] or ["nothing: the model will be the same, bit for bit"]
    return [
        ("restored", ", ".join(parts)),
        ("computed anew", ", ".join(restored["computed_anew"]) or None),
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


def _place(at: Record) -> str:
    return f"epoch {at['epoch']}, batch {at['batch']} ({at['checkpoint_type']} checkpoint)"


def _brief(details: Record) -> str:
    return "  ".join(f"{name}={value}" for name, value in nested(details) if value is not None)


def _number(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
