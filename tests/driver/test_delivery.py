"""Reports of a driver: in order, each once, kept while nobody takes them, ended when refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from ktrdr.driver.delivery import Reporter
from ktrdr.errors import KtrdrError, StaleAttempt
from ktrdr.operations.types import HistoryRow, Phase, Progress, Report

START = Progress(epoch=0, epochs=3, batch=0, batches=10, percent=0.0, metrics=None)


class Inbox:
    """Takes reports as the actor would: at its own pace, or not at all."""

    def __init__(self) -> None:
        self.taken: list[Report] = []
        self.open = threading.Event()
        self.open.set()
        self.refusal: KtrdrError | None = None

    def take(self, report: Report) -> None:
        assert self.open.wait(10.0)
        if self.refusal is not None:
            raise self.refusal
        self.taken.append(report)


def reporter_of(inbox: Inbox, sample: Callable[[], Progress | None]) -> Reporter:
    return Reporter(inbox.take, sample, lambda _: None)


def row(epoch: int) -> HistoryRow:
    return HistoryRow(epoch, {"train_loss": 1.0 / epoch})


def test_what_was_said_before_a_flush_is_delivered_by_it_in_order_and_once() -> None:
    inbox = Inbox()
    reporter = reporter_of(inbox, lambda: START)
    reporter.enter(Phase.TRAINING)
    for epoch in (1, 2):
        reporter.epoch_finished(row(epoch))
    reporter.flush()
    reporter.epoch_finished(row(3))
    reporter.flush()
    reporter.flush()
    reporter.close()
    assert [r.epoch for report in inbox.taken for r in report.history] == [1, 2, 3]
    assert [report.sequence for report in inbox.taken] == list(range(1, len(inbox.taken) + 1))
    assert Phase.TRAINING in [report.phase for report in inbox.taken]
    assert len(inbox.taken) <= 3  # the last flush had nothing new to say


def test_while_nobody_takes_reports_the_speaker_does_not_wait() -> None:
    inbox = Inbox()
    inbox.open.clear()
    place = [START]
    reporter = reporter_of(inbox, lambda: place[0])
    for epoch in range(1, 4):
        reporter.epoch_finished(row(epoch))  # returns at once, or this test would hang
        place[0] = replace(START, epoch=epoch)
    inbox.open.set()
    reporter.close()
    assert [r.epoch for report in inbox.taken for r in report.history] == [1, 2, 3]
    assert inbox.taken[-1].progress == place[0]


def test_a_refusal_is_raised_by_the_flush_and_ends_the_reports() -> None:
    inbox = Inbox()
    refused: list[KtrdrError] = []
    reporter = Reporter(inbox.take, lambda: START, refused.append)
    reporter.flush()
    inbox.refusal = StaleAttempt("attempt 1 is over")
    reporter.epoch_finished(row(1))
    with pytest.raises(StaleAttempt):
        reporter.flush()
    with pytest.raises(StaleAttempt):
        reporter.flush()
    reporter.close()
    assert refused == [inbox.refusal]
