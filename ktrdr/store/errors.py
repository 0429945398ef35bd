"""What the database library raises, as errors of ours; in one line, without a password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from ktrdr.errors import IllegalTransition, StoreUnavailable
from ktrdr.operations.ports import TransactionAborted
from ktrdr.store.addresses import Address
from ktrdr.store.dialect import taken_back


@contextmanager
def translated(address: Address) -> Iterator[None]:
    """Turn what the database library raises into an error of ours."""
    try:
        yield
    except IntegrityError as error:
        raise IllegalTransition(
            f"the store {address.shown} refuses the change: {_cause(address, error)}"
        ) from None
    except SQLAlchemyError as error:
        raise StoreUnavailable(_message(address, error)) from None


@contextmanager
def repeatable(address: Address) -> Iterator[None]:
    """Say of a block that was rolled back through no fault of its own that it may run again."""
    try:
        yield
    except DBAPIError as error:
        if taken_back(error):
            raise TransactionAborted(_message(address, error)) from None
        raise


def _message(address: Address, error: SQLAlchemyError) -> str:
    check = "is the server up, and is" if address.on_server else "check KTRDR_HOME and"
    mark = " right?" if address.on_server else ""
    return (
        f"the store {address.shown} cannot be used ({_cause(address, error)}):"
        f" {check} KTRDR_DATABASE_URL{mark}"
    )


def _cause(address: Address, error: SQLAlchemyError) -> str:
    """Return the first line: what follows it on PostgreSQL may quote a whole row."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return address.cleaned(lines[0] if lines else type(error).__name__)
