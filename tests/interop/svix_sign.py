#!/usr/bin/env python3
"""A foreign sender and receiver of webhooks: signs and verifies with the official svix package.

What it is: svix.webhooks.Webhook with its defaults; it refuses what is more than 5 minutes old.
What it is not: a sender over HTTP, or a second implementation of the signature.

  stdin   {"secret":"whsec_...","id":"...","at":SECONDS,"body":"..."}                one a line: sign
          {"secret":"whsec_...","headers":{...},"body":"..."}                        one a line: verify
  stdout  {"ok":true,"signature":"v1,..."}, {"ok":true} or {"ok":false,"error":"CLASS: message"}
"""

import json
import sys
from datetime import datetime, timezone

from svix.webhooks import Webhook


def answer(line):
    given = json.loads(line)
    webhook = Webhook(given["secret"])
    if "headers" in given:
        webhook.verify(given["body"], given["headers"])
        return {"ok": True}
    at = datetime.fromtimestamp(given["at"], tz=timezone.utc)
    return {"ok": True, "signature": webhook.sign(given["id"], at, given["body"])}


for line in sys.stdin:
    if not line.strip():
        continue
    try:
        said = answer(line)
    except Exception as error:  # whatever svix raises is the answer
        said = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    print(json.dumps(said), flush=True)
