#!/usr/bin/env bash
# Installs what the tests of the OpenAPI document need: schemathesis and a validator in .venv,
# openapi-typescript and TypeScript in node_modules.
#
# What it is: idempotent and quiet when nothing is to do, so that every test run may call it, also
# several at once. Debian packages are installed only where one of them is missing.
# What it is not: an upgrade tool. Versions are those of requirements.txt and package-lock.json.
set -eu
cd "$(dirname "$0")"

. ../installing.sh
alone requirements.txt

if stale node_modules/.installed package-lock.json; then
  command -v node >/dev/null || debian nodejs
  command -v npm >/dev/null || debian npm
  npm ci --no-audit --no-fund --loglevel=error >&2 || fail "npm ci failed (see above); is the npm registry reachable?"
  touch node_modules/.installed
fi

if stale .venv/.installed requirements.txt || ! .venv/bin/python -c 'import schemathesis' 2>/dev/null; then
  python3 -c 'import ensurepip, venv' 2>/dev/null || debian python3 python3-venv
  python3 -m venv --clear .venv || fail "python3 -m venv failed (see above)."
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt >&2 ||
    fail "pip install failed (see above); is the Python package index reachable? Python 3.10 or newer is needed."
  touch .venv/.installed
fi
