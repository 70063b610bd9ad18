#!/usr/bin/env python3
"""A foreign verifier: checks tokens as a Python service would, with PyJWT and its defaults.

What it is: PyJWKClient + jwt.decode. There is one client per jwks_uri for the life of the process,
with PyJWT's own cache (5 min; an unknown kid refetches), so that a key rotation is seen here as a real
service sees it. Start a new process for an empty cache. PyJWT allows no clock skew by default.
What it is not: a second implementation of our checks. It decides nothing that PyJWT does not.

  stdin   {"token":"...","jwks_uri":"...","issuer":"...","audience":"..."}   one a line, all four needed
  stdout  {"ok":true,"kid":"...","alg":"...","sub":"..."} or {"ok":false,"error":"CODE: message"}
          where CODE is the class of the exception
"""

import json
import os
import sys

import jwt

os.environ["no_proxy"] = "*"  # the issuers under test are on loopback

clients = {}


def verify(line):
    given = json.loads(line)
    for name in ("token", "jwks_uri", "issuer", "audience"):
        # PyJWT skips the check of an issuer that is not given; a test must not.
        if not isinstance(given, dict) or not isinstance(given.get(name), str):
            raise ValueError(f'"{name}" must be a string')
    uri = given["jwks_uri"]
    if uri not in clients:
        clients[uri] = jwt.PyJWKClient(uri)
    key = clients[uri].get_signing_key_from_jwt(given["token"])
    claims = jwt.decode(
        given["token"],
        key,
        algorithms=["ES256", "RS256", "EdDSA"],
        issuer=given["issuer"],
        audience=given["audience"],
    )
    header = jwt.get_unverified_header(given["token"])
    return {"ok": True, "kid": header.get("kid"), "alg": header["alg"], "sub": claims.get("sub")}


for line in sys.stdin:
    if not line.strip():
        continue
    try:
        answer = verify(line)
    except Exception as error:  # whatever PyJWT raises is the answer
        answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
