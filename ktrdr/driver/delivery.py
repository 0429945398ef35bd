"""What a driver says of its progress: gathered without waiting, delivered in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ktrdr.errors import KtrdrError, StoreUnavailable
from ktrdr.operations.types import HistoryRow, Phase, Progress, Report, Restored

REPORT_EVERY_S = 1.0
FLUSH_DEADLINE_S = 3700.0  # longer than the link tries


@dataclass(frozen=True)
class _Item:
    phase: Phase | None = None
    row: HistoryRow | None = None
    restored: Restored | None = None


class Reporter:
    """Sends at most about one report a second, and at once when it is flushed.

    `send` may take as long as the actor is away; nobody but a caller of `flush` waits for it.
    When it refuses (the attempt is over), `on_refused` learns why and nothing more is sent.
    `on_delivered` is called, on the thread that sends, whenever nothing is left to be said.
    """

    def __init__(
        self,
        send: Callable[[Report], None],
        sample: Callable[[], Progress | None],
        on_refused: Callable[[KtrdrError], None],
        on_delivered: Callable[[], None] = lambda: None,
    ) -> None:
        self._send = send
        self._sample = sample
        self._on_refused = on_refused
        self._on_delivered = on_delivered
        self.phase = Phase.STARTING
        """The last one entered."""
        self._items: deque[_Item] = deque()
        self._sequence = 0
        self._last_progress: Progress | None = None
        self._rounds_asked = 0
        self._rounds_done = 0
        self._closing = False
        self._refused: KtrdrError | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._deliver, name="reports", daemon=True)
        self._thread.start()

    def enter(self, phase: Phase) -> None:
        self.phase = phase
        self._items.append(_Item(phase=phase))

    def epoch_finished(self, row: HistoryRow) -> None:
        self._items.append(_Item(row=row))

    def restored(self, restored: Restored) -> None:
        self._items.append(_Item(restored=restored))

    def flush(self, deadline_s: float = FLUSH_DEADLINE_S) -> None:
        """Wait until everything said before is in the store; raises what refused it.

        Raises StoreUnavailable when that takes longer than `deadline_s`.
        """
        with self._changed:
            self._rounds_asked += 1
            asked = self._rounds_asked
            self._changed.notify_all()
            answered = self._changed.wait_for(
                lambda: self._refused or self._rounds_done >= asked, deadline_s
            )
        if self._refused is not None:
            raise self._refused
        if not answered:
            raise StoreUnavailable("reports could not be delivered: is the operations actor gone?")

    def close(self) -> None:
        """Deliver what is left, if it still can be, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(FLUSH_DEADLINE_S)

    def _deliver(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closing or self._rounds_asked > self._rounds_done, REPORT_EVERY_S
                )
                round_, closing = self._rounds_asked, self._closing
            try:
                self._send_pending()
                if not self._items:
                    self._on_delivered()
            except KtrdrError as error:
                self._refuse(error)
                return
            with self._changed:
                self._rounds_done = round_
                self._changed.notify_all()
            if closing:
                return

    def _send_pending(self) -> None:
        """One report of all that happened since the last; it is forgotten once acknowledged."""
        items = list(self._items)
        progress = self._sample()
        if not items and progress == self._last_progress:
            return
        phases = [item.phase for item in items if item.phase]
        restored = [item.restored for item in items if item.restored]
        self._send(
            Report(
                sequence=self._sequence + 1,
                phase=phases[-1] if phases else None,
                progress=progress,
                history=tuple(item.row for item in items if item.row),
                restored=restored[-1] if restored else None,
            )
        )
        self._sequence += 1
        self._last_progress = progress
        for _ in items:
            self._items.popleft()

    def _refuse(self, error: KtrdrError) -> None:
        self._on_refused(error)
        with self._changed:
            self._refused = error
            self._changed.notify_all()
