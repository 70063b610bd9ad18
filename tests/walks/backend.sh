#!/usr/bin/env bash
# "I verify tokens": a backend in Node and one in Python from examples/verify, as docs/verifying.md says, against a
# running service.
WALK=backend
. "$(dirname "$0")/walk.sh"
clone
cargo build --locked --quiet
PATH=$PWD/target/debug:$PATH
say "built"

# The service that somebody runs for them: an app with one scope.
start provider exchequer dev
appears provider "Do it yourself"
provider=$(sed -n 's/^The identity provider.*\(http:.*\)$/\1/p' "$SCRATCH/provider.log")
mkdir "$SCRATCH/service"
port=$(free_port)
cat >"$SCRATCH/service/exchequer.toml" <<TOML
[issuers.clerk]
kind = "clerk"
issuer = "$provider"
authorized_parties = ["http://localhost:3000"]
[apps.web]
issuers = "clerk"
audience = ["https://api.example.com", "https://other.example.com"]
[apps.web.scopes]
"read:reports" = ["report.view"]
"write:reports" = ["report.edit"]
TOML
export ISSUER=http://127.0.0.1:$port AUDIENCE=https://api.example.com
start service env -C "$SCRATCH/service" EXCHEQUER_ISSUER="$ISSUER" EXCHEQUER_LISTEN="127.0.0.1:$port" \
  EXCHEQUER_STORE=memory EXCHEQUER_SHUTDOWN_DELAY=0s EXCHEQUER_LOG_FORMAT=json exchequer serve
appears service '"message":"listening"'

token() { # AUDIENCE SCOPE
  member "$(curl -s "$ISSUER/auth/exchange" -H 'Content-Type: application/json' \
    -d "{\"session_token\":\"$(curl -s "$provider/session-token")\",\"audience\":\"$1\",\"scope\":\"$2\"}")" token
}

# What anybody's backend must do, whatever it is written in.
judges() { # LANGUAGE PORT
  local url=http://127.0.0.1:$2/reports
  until_ok curl -s "$url"
  status 200 "$url" -H "Authorization: Bearer $(token "$AUDIENCE" read:reports)"
  sees "$(cat "$SCRATCH/body")" user_2standin
  status 401 "$url"
  status 401 "$url" -H "Authorization: Bearer $(curl -s "$provider/session-token")"
  status 401 "$url" -H "Authorization: Bearer $(token https://other.example.com read:reports)"
  status 403 "$url" -H "Authorization: Bearer $(token "$AUDIENCE" write:reports)"
  say "$1: the right token passes; none, the provider's, another audience's and another scope's do not"
}

cd "$SCRATCH/exchequer/examples/verify/node"
npm ci --no-audit --no-fund --loglevel=error >/dev/null
PORT=$(free_port)
start node env PORT="$PORT" node server.mjs
judges node "$PORT"

cd "$SCRATCH/exchequer/examples/verify/python"
python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt >&2
PORT=$(free_port)
start python .venv/bin/uvicorn --port "$PORT" server:app
judges python "$PORT"
