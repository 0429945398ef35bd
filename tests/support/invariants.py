"""What holds for every row of a store, whatever has happened."""

from __future__ import annotations

from ktrdr.operations.service import OperationsService


def check_rows(service: OperationsService) -> None:
    """Check that each row is what its events lead to, and that no history has holes."""
    for row in service.list()[0]:
        wrong = service.inconsistency(row.operation_id)
        assert wrong is None, f"{row.operation_id}: {wrong}"
        epochs = [history.epoch for history in service.history(row.operation_id)]
        assert epochs == list(range(1, len(epochs) + 1)), f"{row.operation_id}: {epochs}"
