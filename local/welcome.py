"""What `make up` prints when all is up."""

from local.settings import LocalSettings
from local.stack import base_url
from local.state import StateFolder
from local.tokens import development_token

CREATED = """python3 -c 'import json, sys; print(json.load(sys.stdin)["session_id"])'"""


def welcome(settings: LocalSettings, state: StateFolder, *, is_secret_made: bool) -> str:
    """The addresses, a token, and three lines to paste."""
    api = base_url(settings.api_host, settings.api_port)
    token = development_token(settings.jwt_secret.get_secret_value()) if settings.jwt_secret else "..."
    user, _, password = (settings.flower_basic_auth or "").partition(":")
    who = f"        user {user}, password {password}" if user else ""
    made = f"made for development, kept in {state.folder}/jwt_secret" if is_secret_made else "yours"
    shop = f"\n  Shop    {api}/        a demo, with buttons that make trouble" if settings.demo else ""
    return f"""
The checkout sessions are up. Ctrl-C stops them; data and logs stay in {state.folder}.

  API     {api}         {api}/docs{shop}
  Flower  {base_url("127.0.0.1", settings.flower_port)}{who}
  Secret  {made}

Try it (a token for a demo user, then create, validate, complete):

{curl_lines(api, token)}
"""


def curl_lines(api: str, token: str) -> str:
    """They can be pasted together, and again and again."""
    post = """-H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -H 'Prefer: wait=10'"""
    package = """'{"package": "basic"}'"""
    paid = """'{"payment_reference": "demo-'$SESSION'"}'"""
    return "\n".join(
        (
            f"TOKEN={token}",
            f"SESSION=$(curl -sS {api}/api/sessions {post} -d {package} -w '\\n' | tee /dev/stderr | {CREATED})",
            f"""curl -sS {api}/api/sessions/$SESSION -H "Authorization: Bearer $TOKEN" -w '\\n'""",
            f"""curl -sS {api}/api/sessions/$SESSION/complete {post} -d {paid} -w '\\n'""",
        )
    )
