#!/usr/bin/env bash
# Installs what the app needs: npm packages, and the client library as npm would have it.
#
# What it is: idempotent and quiet when nothing is to do, so that every start may call it.
set -eu
cd "$(dirname "$0")"

fail() {
  echo "quickstart/install.sh: $*" >&2
  exit 1
}

packages() { # FOLDER
  [ ! -e "$1/node_modules/.installed" ] || [ "$1/node_modules/.installed" -ot "$1/package-lock.json" ] || return 0
  (cd "$1" && npm ci --no-audit --no-fund --loglevel=error >&2) || fail "npm ci failed (see above); is the npm registry reachable?"
  touch "$1/node_modules/.installed"
}

command -v npm >/dev/null || fail "Node 20.18 or newer with npm is needed: https://nodejs.org/en/download"
client=../../clients/typescript
packages .
packages "$client"
newest=$(find "$client/src" -newer "$client/dist/index.js" 2>/dev/null | head -n 1)
[ -e "$client/dist/index.js" ] && [ -z "$newest" ] || (cd "$client" && npm run build --silent >&2)
