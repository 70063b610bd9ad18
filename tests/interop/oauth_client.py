#!/usr/bin/env python3
"""A foreign OAuth client: Authlib, unmodified, against our token endpoint.

What it is: Authlib's OAuth2Client over httpx, one call a line, with its own client authentication.
What it is not: a second implementation of OAuth. It decides nothing that Authlib does not.

  stdin   {"url":"...","issuer":"...","client_id":"...","secret":"...","auth":"client_secret_basic"|...,
           "key":PEM,"do":"client_credentials"|"grant"|"refresh"|"code"|"introspect"|"revoke",...}
  stdout  {"ok":{...}} or {"error":"CODE","description":"..."}
"""

import json
import sys

import httpx
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oauth2.rfc7523 import ClientSecretJWT, PrivateKeyJWT


def run(given):
    endpoint = given["url"] + "/oauth/token"
    auth = given.get("auth", "client_secret_basic")
    secret = given.get("key") or given.get("secret")
    client = OAuth2Client(
        given["client_id"],
        secret,
        token_endpoint_auth_method=auth,
        redirect_uri=given.get("redirect_uri"),
        transport=httpx.HTTPTransport(),
        trust_env=False,
    )
    # The audience of an assertion is the issuer's, wherever the service under test listens.
    audience = given["issuer"]
    if auth == "client_secret_jwt":
        client.register_client_auth_method(ClientSecretJWT(audience))
    if auth == "private_key_jwt":
        client.register_client_auth_method(PrivateKeyJWT(audience, alg=given.get("alg", "RS256")))
    parameters = given.get("parameters", {})
    do = given["do"]
    if do == "client_credentials":
        return client.fetch_token(endpoint, grant_type=do, **parameters)
    if do == "grant":
        return client.fetch_token(endpoint, grant_type=given["grant_type"], **parameters)
    if do == "refresh":
        return client.refresh_token(endpoint, refresh_token=given["refresh_token"], **parameters)
    if do == "code":
        return client.fetch_token(
            endpoint, authorization_response=given["callback"], state=given["state"], code_verifier=given["code_verifier"]
        )
    if do == "introspect":
        return client.introspect_token(given["url"] + "/oauth/introspect", token=given["token"]).json()
    if do == "revoke":
        answer = client.revoke_token(given["url"] + "/oauth/revoke", token=given["token"])
        answer.raise_for_status()
        return {}
    raise ValueError(f"do {do}?")


for line in sys.stdin:
    if not line.strip():
        continue
    try:
        answer = {"ok": dict(run(json.loads(line)))}
    except OAuthError as error:
        answer = {"error": error.error, "description": error.description}
    except Exception as error:  # whatever Authlib raises is the answer
        answer = {"error": type(error).__name__, "description": str(error)}
    print(json.dumps(answer), flush=True)
