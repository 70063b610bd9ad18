#!/usr/bin/env bash
# Installs what the tests of the OpenAPI document need: schemathesis and a validator in .venv,
# openapi-typescript and TypeScript in node_modules.
#
# What it is: idempotent and quiet when nothing is to do, so that every test run may call it, also
# several at once. Debian packages are installed only where one of them is missing.
# What it is not: an upgrade tool. Versions are those of requirements.txt and package-lock.json.
set -eu
cd "$(dirname "$0")"

fail() {
  echo "openapi/install.sh: $*" >&2
  exit 1
}

debian() { # PACKAGE...
  command -v apt-get >/dev/null || fail "missing: $*. There is no apt-get here; install them yourself and run this again."
  if [ "$(id -u)" -eq 0 ]; then
    sudo=
  elif command -v sudo >/dev/null; then
    sudo=sudo
  else
    fail "missing: $*. Install them as root (apt-get install $*) and run this again."
  fi
  quiet="env DEBIAN_FRONTEND=noninteractive"
  { $sudo apt-get update -qq && $sudo $quiet apt-get install -qq -y --no-install-recommends "$@"; } >&2 ||
    fail "apt-get could not install $*."
}

if command -v flock >/dev/null; then # one at a time; the lock goes when the script ends
  exec 9<requirements.txt
  flock 9
fi

stale() { # STAMP SOURCE
  [ ! -e "$1" ] || [ "$1" -ot "$2" ]
}

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
