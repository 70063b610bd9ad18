"""joserfc: it fetches nothing by itself. The keys are fetched once here, and again for a `kid` that is not there."""

import http.server
import json
import os
import urllib.request

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

ISSUER, ALG = os.environ["ISSUER"], os.environ["ALG"]
os.environ["no_proxy"] = "*"  # the service under test is on loopback
RULES = jwt.JWTClaimsRegistry(
    iss={"essential": True, "value": ISSUER},
    aud={"essential": True, "value": os.environ["AUDIENCE"]},
    exp={"essential": True},
)
keys = None


def fetched():
    with urllib.request.urlopen(f"{ISSUER}/.well-known/jwks.json") as answer:
        return KeySet.import_key_set(json.load(answer))


def verified(token):
    global keys
    keys = keys or fetched()
    try:
        claims = jwt.decode(token, keys, algorithms=[ALG]).claims
    except InvalidKeyIdError:
        keys = fetched()
        claims = jwt.decode(token, keys, algorithms=[ALG]).claims
    RULES.validate(claims)
    return claims


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = 401, b""
        try:
            claims = verified(self.headers.get("authorization", "").removeprefix("Bearer "))
            status = 200 if "read:reports" in claims.get("scope", "").split() else 403
            body = claims["sub"].encode()
        except (JoseError, ValueError):
            pass
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
