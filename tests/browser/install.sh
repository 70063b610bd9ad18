#!/usr/bin/env bash
# Installs what the tests in a browser and of the TypeScript client need: npm packages, and Debian's Chromium.
#
# What it is: idempotent and quiet when nothing is to do, so that every test run may call it, also
# several at once. Debian packages are installed only where one of them is missing.
# What it is not: a download of a browser; playwright-core drives the one that is here.
set -eu
cd "$(dirname "$0")"

. ../installing.sh
alone package-lock.json

command -v node >/dev/null || debian nodejs
node -e 'const [major, minor] = process.versions.node.split("."); process.exit(major > 20 || (major == 20 && minor >= 18) ? 0 : 1)' ||
  fail "node $(node -v) is too old: 20.18 or newer is needed. Where the distribution has none, see https://nodejs.org/en/download"
for folder in . ../../clients/typescript ../../clients/typescript/examples; do
  stamp=$folder/node_modules/.installed
  if [ ! -e "$stamp" ] || [ "$stamp" -ot "$folder/package-lock.json" ]; then
    command -v npm >/dev/null || debian npm
    (cd "$folder" && npm ci --no-audit --no-fund --loglevel=error >&2) ||
      fail "npm ci failed in $folder (see above); is the npm registry reachable?"
    touch "$stamp"
  fi
done

# Where EXCHEQUER_CHROMIUM names another Chromium, that one is used.
[ -n "${EXCHEQUER_CHROMIUM:-}" ] || command -v chromium >/dev/null || debian chromium
