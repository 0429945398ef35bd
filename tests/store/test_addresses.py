"""What is accepted as the address of a store, and that its password is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktrdr.errors import StoreUnavailable
from ktrdr.settings import Settings
from ktrdr.store import masked, open_store
from ktrdr.store.addresses import address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "u:secret@h/d",
        "host=h user=u password=secret",
        "host=h password='my secret' user=u",
        "x://[:p",
        "mysql://u:secret@h/d",
        "postgresql+nope://u:secret@h/d",
        "postgresql://u:secret@h:port/d",
        "postgresql://u:p@secret@h/d",
        "postgresql://u:p@sec/ret@h/d",
        "postgresql://u:p@sec?secret@h/d",
        "postgresql://u:se%00cret@h/d",
    ],
)
def test_an_unusable_url_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(StoreUnavailable, match="KTRDR_DATABASE_URL") as caught:
        open_store(text)
    assert_hidden(caught.value.message)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:secret@127.0.0.1:1/d",
        "postgresql+psycopg2://u:s%65cret@127.0.0.1:1/d",
        "postgresql:///d?host=127.0.0.1&port=1&user=u&password=secret",
        "postgresql:///d?host=127.0.0.1&port=1&user=u&sslpassword=secret",
        "postgresql://u:secret@127.0.0.1:1/d?nonsense=1",
        "postgresql://u:secret@/d?host=127.0.0.1:1&host=127.0.0.1:port",
        "postgresql://u:sec/?#ret@127.0.0.1:1/d",
    ],
)
def test_a_server_out_of_reach_is_unavailable_without_its_password(text: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        open_store(text)
    assert caught.value.exit_status == 6
    assert_hidden(caught.value.message)


def assert_hidden(message: str) -> None:
    assert "\n" not in message
    for part in ("secret", "s%65cret", "sec/", "?#ret"):
        assert part not in message


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("sqlite:////a:b@c/d.db", "sqlite:////a:b@c/d.db"),
        ("postgresql://u:***@h:5/d", "postgresql://u:p@s:w@h:5/d"),
        ("postgresql://u:***@h:5/d", "postgresql://u:p/s?w#x@h:5/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql:///d?host=h&password=***&x=1", "postgresql:///d?host=h&password=pw&x=1"),
        ("postgresql:///d?sslpassword=***", "postgresql:///d?sslpassword=pw"),
    ],
)
def test_passwords_are_masked(shown: str, text: str) -> None:
    assert masked(text) == shown


def test_what_a_server_says_is_shown_without_passwords() -> None:
    place = address("postgresql://u:se%2Fcret@h/d?sslpassword=secret")
    assert place.cleaned("no se/cret, no secret, but user u") == "no ***, no ***, but user u"


def test_no_representation_shows_a_password() -> None:
    url = "postgresql://u:secret@h/d?sslpassword=secret"
    assert_hidden(repr(Settings(Path("/h"), url, Path("/s"))))
    assert_hidden(repr(address(url)))
