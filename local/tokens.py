"""`make token`: a bearer token for development, signed with the secret of the settings or of the state folder."""

import os
import sys
from datetime import UTC, datetime, timedelta

import jwt

from local.settings import state_dir
from local.state import StateFolder

DEMO_USER = "7d9f6c1e-3a52-4b0e-9a55-0c1d5e8f2b64"
LIFETIME = timedelta(days=7)


def development_token(secret: str, user: str = DEMO_USER, role: str = "authenticated") -> str:
    """A token as the shop's sign-in would give it."""
    claims = {"sub": user, "role": role, "exp": datetime.now(UTC) + LIFETIME}
    if audience := os.environ.get("JWT_AUDIENCE"):
        claims["aud"] = audience
    return jwt.encode(claims, secret, algorithm="HS256")


def main(arguments: list[str]) -> None:
    """Print one: `python -m local.tokens [user [role]]`."""
    if os.environ.get("JWT_JWKS_URL"):
        sys.exit("Tokens are checked with JWT_JWKS_URL: only who holds its private key can make one.")
    state = StateFolder(state_dir())
    os.environ |= {name: value for name, value in state.published().items() if name == "JWT_AUDIENCE"}
    secret = os.environ.get("JWT_SECRET") or state.published().get("JWT_SECRET")
    if not secret:
        state.create()
        secret = state.secret()
    print(development_token(secret, *arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
