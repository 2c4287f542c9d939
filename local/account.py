"""Who an embedded server runs as. PostgreSQL refuses to run as root; Redis does not need it either."""

import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path

STAND_INS = ("postgres", "nobody")  # in place of root; an existing account, since initdb wants a name


@dataclass(frozen=True)
class Account:
    """The user of a server's process; `uid` None is the user that runs this."""

    uid: int | None = None
    gid: int | None = None
    must_reach: bool = False

    @classmethod
    def of_server(cls, data: Path, needs: Path) -> "Account":
        """For root the owner of the data or a stand-in, for others themselves.

        A checkout or a state folder below a closed folder such as /root is beyond a stand-in. It then keeps the
        capability to pass it, which is less than the root that the rest of the stack runs as.
        """
        if os.geteuid() != 0:
            return cls()
        entry = _stand_in(data)
        closed = any(not _is_open(path) for path in (data, needs))
        return cls(entry.pw_uid, entry.pw_gid, must_reach=closed)

    def options(self) -> list[str]:
        """How the launcher is told."""
        if self.uid is None:
            return []
        return ["--user", str(self.uid), "--group", str(self.gid), *(["--reach"] if self.must_reach else [])]

    def own(self, path: Path) -> None:
        """Make `path` belong to this account."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def _stand_in(data: Path) -> pwd.struct_passwd:
    names = [data.owner()] if data.exists() and data.stat().st_uid != 0 else [*STAND_INS]
    for name in names:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    sys.exit(f"PostgreSQL does not run as root and this machine has none of the users {', '.join(names)} to run it as.")


def _is_open(path: Path) -> bool:
    """Whether anybody may pass every folder on the way to `path`."""
    return all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents)
