#!/usr/bin/env python3
"""A verifier who asks nobody about a token: it reads the token's bit in the status list
(draft-ietf-oauth-status-list-21 §8.3), with PyJWT for the signature and zlib for the list.

What it is: the steps of §8.3, in their order. What it is not: a cache; it fetches anew each time.

  stdin   {"token":"...","base":"..."}   one a line; base is where the issuer of the test listens
  stdout  {"status":0|1,"places":N,"exp_in":N,"ttl":N} or {"error":"CODE: message"}
"""

import base64
import json
import os
import sys
import urllib.parse
import urllib.request
import zlib

import jwt

os.environ["no_proxy"] = "*"  # the issuers under test are on loopback


def verified(token, base, **options):
    keys = jwt.PyJWKClient(f"{base}/.well-known/jwks.json")
    key = keys.get_signing_key_from_jwt(token)
    return jwt.decode(token, key, algorithms=["ES256", "RS256", "EdDSA"], options=options)


def status(given):
    claims = verified(given["token"], given["base"], verify_aud=False)
    place = claims["status"]["status_list"]
    assert set(place) == {"idx", "uri"}
    uri = urllib.parse.urlsplit(place["uri"])
    request = urllib.request.Request(
        given["base"] + uri.path, headers={"accept": "application/statuslist+jwt"}
    )
    with urllib.request.urlopen(request) as response:
        assert response.headers["content-type"] == "application/statuslist+jwt"
        compact = response.read().decode("ascii")
    assert jwt.get_unverified_header(compact)["typ"] == "statuslist+jwt"
    said = verified(compact, given["base"], require=["sub", "iat", "exp", "ttl", "status_list"])
    assert said["sub"] == place["uri"]
    assert said["status_list"]["bits"] == 1
    lst = said["status_list"]["lst"]
    bits = zlib.decompress(base64.urlsafe_b64decode(lst + "=" * (-len(lst) % 4)))
    index = place["idx"]
    return {
        "status": bits[index // 8] >> index % 8 & 1,
        "places": len(bits) * 8,
        "exp_in": said["exp"] - said["iat"],
        "ttl": said["ttl"],
    }


for line in sys.stdin:
    if not line.strip():
        continue
    try:
        answer = status(json.loads(line))
    except Exception as error:  # whatever PyJWT raises is the answer
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
