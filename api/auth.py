"""Who asks: a JWT with the claims of the Supabase tokens that the shop has today."""

from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeGuard

import jwt
from fastapi import Depends, Request
from jwt import PyJWK
from jwt.algorithms import HMACAlgorithm
from jwt.utils import base64url_encode, force_bytes

from api.edge import address_of
from api.hot import SENT
from api.keys import Keys
from api.problems import Problem
from api.rates import Rates
from api.settings import ApiSettings

LEEWAY: Final = 10  # seconds that clocks may differ
USER_ID_LENGTH: Final = 255
STRICT: Final = ("/recover", "/complete", "/recover-checkout-session", "/complete-checkout-session")
CACHED_TOKENS: Final = 10_000  # about 10 MB; a shopper's frontend sends the same token hundreds of times


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks.

    Args:
        user_id: the token's `sub`; empty for a service.
        service: whether the token's role is `service_role`, which manages all users' sessions.
    """

    user_id: str
    service: bool

    def may_see(self, user_id: str) -> bool:
        """Whether something of this user may be shown."""
        return self.service or self.user_id == user_id


EVERYONE: Final = Principal("", service=True)  # as whom the service itself looks


class _Prepared(HMACAlgorithm):
    """Takes the secret as it is: to look for PEM and JSON in it anew is two fifths of a token's check."""

    def prepare_key(self, key: str | bytes) -> bytes:
        """The key itself."""
        return force_bytes(key)


def _secret_key(secret: str) -> PyJWK:
    prepared = HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    key = PyJWK.from_dict({"kty": "oct", "k": base64url_encode(prepared).decode(), "alg": "HS256"})
    key.Algorithm = _Prepared(HMACAlgorithm.SHA256)
    return key


class Verifier:
    """Checks bearer tokens: signature, algorithm by the kind of key, `exp`, `nbf`, `aud`, `iss`, role."""

    def __init__(self, settings: ApiSettings) -> None:
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer
        self._secret = _secret_key(settings.jwt_secret.get_secret_value()) if settings.jwt_secret else None
        self._seen: dict[str, tuple[float, Principal]] = {}
        self._keys = Keys(str(settings.jwt_jwks_url), self._seen.clear) if settings.jwt_jwks_url else None

    async def principal(self, token: str, now: float) -> Principal:
        """Who a token speaks for.

        Args:
            token: as the client sent it.
            now: seconds since the epoch, for tokens checked before.

        Raises:
            Problem: the token is not valid, or not any more.
        """
        seen = self._seen.get(token)
        if seen and now < seen[0]:
            return seen[1]
        claims = await self._claims(token)
        principal = _principal(claims)
        if len(self._seen) >= CACHED_TOKENS:
            del self._seen[next(iter(self._seen))]  # the oldest
        self._seen[token] = (float(claims["exp"]) + LEEWAY, principal)
        return principal

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            key = await self._keys.of(token) if self._keys else self._secret
            assert key is not None
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],  # the key says which, never the token
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": ["exp"], "verify_aud": self._audience is not None},
            )
        except jwt.ExpiredSignatureError:
            raise _unauthorized("token_expired") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise _unauthorized("token_invalid") from None
        return claims


def _principal(claims: dict[str, Any]) -> Principal:
    """Supabase's service key has no `sub`; whoever is no service is their `sub`."""
    role, user_id = claims.get("role"), claims.get("sub")
    if role == "service_role":
        return EVERYONE
    if role != "authenticated" or not is_user_id(user_id):
        raise _unauthorized("token_invalid")
    return Principal(user_id, service=False)


def is_user_id(value: Any) -> TypeGuard[str]:
    """Whether Postgres can keep it: some text, not too long, without NUL or lone surrogates."""
    return isinstance(value, str) and 0 < len(value) <= USER_ID_LENGTH and "\0" not in value and _is_utf8(value)


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _challenge(error: str) -> dict[str, str]:
    return {"WWW-Authenticate": f'Bearer error="{error}"' if error else "Bearer"}


def _unauthorized(code: str) -> Problem:
    return Problem(code, headers=_challenge("" if code == "token_missing" else "invalid_token"))


async def authenticated(request: Request) -> Principal:
    """The dependency of each path that needs a token; the rates are counted here. A service's are its own affair."""
    scheme, _, token = request.scope[SENT].get(b"authorization", b"").decode("latin-1").partition(" ")
    parts = request.app.state.parts
    rates: Rates = parts.rates
    try:
        if scheme.lower() != "bearer" or not token:
            raise _unauthorized("token_missing")
        principal: Principal = await parts.verifier.principal(token.strip(), parts.clock())
    except Problem:
        rates.address.count(address_of(request.scope))  # who guesses is limited, too
        raise
    if not principal.service:
        rates.address.count(address_of(request.scope))
        rates.user.count(principal.user_id)
        if request.scope["path"].endswith(STRICT):
            rates.strict.count(principal.user_id)
    request.state.user_id = principal.user_id
    return principal


async def service(request: Request) -> Principal:
    """The dependency of the operators' paths."""
    principal = await authenticated(request)
    if not principal.service:
        raise Problem("forbidden", headers=_challenge("insufficient_scope"))
    return principal


Authenticated = Annotated[Principal, Depends(authenticated)]
Service = Annotated[Principal, Depends(service)]
