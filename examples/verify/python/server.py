"""A backend on FastAPI that verifies app JWTs with PyJWT."""

import os
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

ISSUER, AUDIENCE = os.environ["ISSUER"], os.environ["AUDIENCE"]
ALGORITHM = os.environ.get("ALG", "ES256")

# One for the life of the process: it keeps the keys for 5 minutes.
keys = jwt.PyJWKClient(f"{ISSUER}/.well-known/jwks.json")
bearer = HTTPBearer(auto_error=False)


def refusal(status, error):
    return HTTPException(status, error, {"WWW-Authenticate": f'Bearer error="{error}"'})


def requires(scope):
    # Not async: fetching the keys blocks, and FastAPI gives such a function a thread.
    def verified(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]):
        try:
            token = given.credentials if given else ""
            claims = jwt.decode(
                token,
                keys.get_signing_key_from_jwt(token),
                algorithms=[ALGORITHM],  # never what the token's header says
                issuer=ISSUER,
                audience=AUDIENCE,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError:
            raise refusal(401, "invalid_token") from None
        if scope not in claims.get("scope", "").split():
            raise refusal(403, "insufficient_scope")
        return claims

    return Depends(verified)


app = FastAPI()


@app.get("/reports")
def reports(claims: Annotated[dict, requires("read:reports")]):
    return {"user": claims["sub"]}
