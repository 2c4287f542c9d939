"""The embedded servers: started, stopped, killed, frozen, as root and not."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from local.account import Account
from local.embedded import ServerError
from local.servers import EmbeddedPostgres, EmbeddedRedis, OlderStateError
from tests.stack import ROOT, eventually


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """One that each test leaves running."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """One that each test leaves running."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


def ask(server: EmbeddedPostgres, question: str) -> str:
    """The first value of the answer."""
    with psycopg.connect(server.libpq_url, connect_timeout=10) as connection:
        row = connection.execute(question).fetchone()
    assert row is not None
    return str(row[0])


def test_postgres_is_durable_and_in_utf8(postgres: EmbeddedPostgres) -> None:
    settings = ("server_encoding", "fsync", "synchronous_commit", "full_page_writes", "timezone")
    found = [ask(postgres, f"SELECT current_setting('{name}')") for name in settings]
    assert found == ["UTF8", "on", "on", "on", "UTC"]
    assert ask(postgres, "SELECT current_setting('server_version')").startswith("18.")


def test_postgres_wants_its_password(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.libpq_url.replace(postgres.password, "guess"))
    assert (postgres.folder / "postgres_password").stat().st_mode & 0o777 == 0o600


def test_the_login_is_no_superuser(postgres: EmbeddedPostgres) -> None:
    assert ask(postgres, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == "False"


def test_postgres_keeps_data_and_port_over_a_stop(postgres: EmbeddedPostgres) -> None:
    url = postgres.url
    with psycopg.connect(postgres.libpq_url) as connection:
        connection.execute("CREATE TABLE kept ()")
    postgres.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres.libpq_url)
    postgres.start()
    assert postgres.url == url
    assert ask(postgres, "SELECT count(*) FROM kept") == "0"


def test_postgres_comes_back_from_a_crash_with_what_was_committed(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.libpq_url) as connection:
        connection.execute("CREATE TABLE committed ()")
        connection.commit()
        postgres.kill()
    assert (postgres.data / "postmaster.pid").exists()
    postgres.start()
    assert ask(postgres, "SELECT count(*) FROM committed") == "0"


def test_a_pid_file_that_names_another_program_is_no_obstacle(postgres: EmbeddedPostgres) -> None:
    postgres.kill()
    stale = postgres.data / "postmaster.pid"
    lines = stale.read_text().splitlines()
    with subprocess.Popen(["sleep", "60"], user=postgres.account.uid) as sleep:
        stale.write_text("\n".join([str(sleep.pid), *lines[1:], ""]))
        postgres.start()
        sleep.kill()
    assert ask(postgres, "SELECT 1") == "1"


def test_a_frozen_postgres_keeps_its_clients_and_goes_on(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.libpq_url) as connection:
        postgres.pause()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(postgres.libpq_url, connect_timeout=2)
        postgres.resume()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_postgres_does_not_run_as_root_nor_with_more_than_it_needs(postgres: EmbeddedPostgres) -> None:
    assert postgres.process
    status = dict(line.split(":\t") for line in Path(f"/proc/{postgres.process.pid}/status").read_text().splitlines())
    uids = set(status["Uid"].split())
    assert "0" not in uids
    reach = 1 << 1 if postgres.account.must_reach else 0
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm")} == {reach}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another user")
@pytest.mark.parametrize(("mode", "must_reach"), [(0o755, False), (0o711, False), (0o700, True)])
def test_root_gives_the_server_a_capability_only_to_pass_closed_folders(mode: int, must_reach: bool) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(mode)
        account = Account.of_server(Path(folder, "postgres"), needs=Path("/bin/sh"))
    assert account.uid
    assert account.must_reach == must_reach


def test_a_half_made_cluster_is_made_anew(tmp_path: Path) -> None:
    draft = tmp_path / "postgres.new"
    draft.mkdir()
    (draft / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(tmp_path) as server:
        assert ask(server, "SELECT 1") == "1"
    assert not draft.exists()


def test_another_major_version_is_refused(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    server.data.mkdir()
    (server.data / "PG_VERSION").write_text("17\n")
    with pytest.raises(OlderStateError, match="was made by PostgreSQL 17 and this needs 18: set STATE_DIR"):
        server.start()


def test_a_server_that_cannot_start_says_why(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    second = EmbeddedPostgres(tmp_path / "second", port=postgres.port)
    with pytest.raises(ServerError, match="could not create any TCP/IP sockets"):
        second.start()
    assert second.process is None


def test_redis_keeps_what_it_was_told_and_never_evicts(redis_server: EmbeddedRedis) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}
        assert {name: client.config_get(name)[name] for name in wanted} == wanted
        client.set("kept", "1")
        redis_server.stop()
        redis_server.start()
        assert client.get("kept") == b"1"


def test_redis_comes_back_from_a_crash(redis_server: EmbeddedRedis) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("kept", "1")
        redis_server.kill()
        redis_server.start()
        assert client.get("kept") == b"1"


def test_redis_wants_its_password(redis_server: EmbeddedRedis) -> None:
    with redis.Redis(port=redis_server.port) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    assert redis_server.process
    assert redis_server.password not in " ".join(psutil.Process(redis_server.process.pid).cmdline())


def test_servers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, threading\n"
        "from local.servers import EmbeddedPostgres, EmbeddedRedis\n"
        "servers = [kind(pathlib.Path(sys.argv[1])) for kind in (EmbeddedPostgres, EmbeddedRedis)]\n"
        "for server in servers:\n"
        "    thread = threading.Thread(target=server.start)\n"
        "    thread.start(), thread.join()\n"  # whose end must not be taken for the process's
        "    server.ping()\n"
        "print(*(server.process.pid for server in servers), flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        process.send_signal(signal.SIGKILL)
    eventually(lambda: not any(map(_lives, pids)), "both servers are gone")


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
