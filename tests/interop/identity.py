#!/usr/bin/env python3
"""An example of a service behind the gate: checks X-Signature as a Python backend would.

What it is: `verified` below, with Python's standard library alone, ready to be copied.
What it is not: a check of anything else; roles and scopes are for the service to look at.

  stdin   {"secret":"whsec_...","method":"...","target":"/path?query","headers":{"x-app":"..."},
           "body":"...","now":1763700000}   one a line
  stdout  {"ok":true,"user":"..."} or {"ok":false,"error":"..."}
"""

import base64
import hashlib
import hmac
import json
import sys

IDENTITY = (
    "x-app",
    "x-user-id",
    "x-org-id",
    "x-roles",
    "x-scopes",
    "x-rate-limit-key",
    "x-client-id",
)
MAX_AGE = 60  # seconds


def verified(secret, method, target, headers, body, now):
    """The user, where the identity headers are signed for this very request."""
    parts = headers.get("x-signature", "").split(",")
    if len(parts) != 3 or parts[0] != "v1" or not parts[1].startswith("t="):
        raise ValueError("no signature of version 1")
    time = parts[1][2:]
    if not time.isdecimal() or abs(now - int(time)) > MAX_AGE:
        raise ValueError("too old")
    digest = "-"
    if body:
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    lines = ["v1", time, method, target, digest]
    # A gateway may leave out a header that has nothing to say.
    lines += [f"{name}:{headers.get(name, '')}" for name in IDENTITY]
    key = base64.b64decode(secret.removeprefix("whsec_"))
    code = hmac.new(key, "\n".join(lines).encode(), hashlib.sha256).digest()
    if not hmac.compare_digest(base64.b64encode(code).decode(), parts[2]):
        raise ValueError("signed for another request, or by somebody else")
    return headers["x-user-id"]


for line in sys.stdin:
    given = json.loads(line)
    try:
        user = verified(
            given["secret"], given["method"], given["target"], given["headers"],
            given["body"].encode(), given["now"],
        )
        answer = {"ok": True, "user": user}
    except ValueError as error:
        answer = {"ok": False, "error": str(error)}
    print(json.dumps(answer), flush=True)
