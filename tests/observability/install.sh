#!/usr/bin/env bash
# Installs what the tests of traces, rules and the dashboard need: Python packages in .venv, promtool
# in bin/, and, on a machine with Go, the collector's OTLP receiver in go/bin.
#
# What it is: idempotent and quiet when nothing is to do. What it is not: an upgrade tool. Versions
# are those of requirements.txt and go/go.mod; promtool's is Debian's. No server is installed.
set -eu
cd "$(dirname "$0")"

. ../installing.sh
alone requirements.txt

if [ .venv/.installed -ot requirements.txt ] || ! .venv/bin/python -c 'import opentelemetry.proto, yaml' 2>/dev/null; then
  python3 -c 'import ensurepip, venv' 2>/dev/null || debian python3 python3-venv
  python3 -m venv --clear .venv || fail "python3 -m venv failed (see above)."
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt >&2 ||
    fail "pip install failed (see above); is the Python package index reachable? Python 3.10 or newer is needed."
  touch .venv/.installed
fi

# The package would install a server beside it: its file is unpacked here instead.
if ! command -v promtool >/dev/null && [ ! -x bin/promtool ]; then
  command -v apt-get >/dev/null || fail "missing: promtool. It comes with Prometheus 2.42 or newer."
  rm -rf bin/package && mkdir -p bin/package
  (cd bin/package && { apt-get download -qq prometheus 2>/dev/null ||
    { as_root apt-get update -qq && apt-get download -qq prometheus; }; } &&
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x --strip-components=3 -C .. ./usr/bin/promtool) >&2 ||
    fail "Debian's prometheus could not be fetched (see above)."
  rm -rf bin/package
fi

# Debian's Go is too old for these modules, so none is installed; the tests say that they skip.
go_serves() {
  command -v go >/dev/null || return 1
  version=$(GOTOOLCHAIN=local go env GOVERSION)
  [ "$(printf 'go1.25\n%s\n' "$version" | sort -V | head -n 1)" = go1.25 ]
}
if [ go/bin/receiver -ot go/go.sum ] || [ go/bin/receiver -ot go/receiver/main.go ]; then
  if ! go_serves; then
    echo "observability/install.sh: no go 1.25 here: the collector's receiver is not built, its tests are skipped" >&2
  elif ! (cd go && mkdir -p bin && go build -trimpath -o bin/receiver ./receiver) >&2; then
    rm -rf go/bin
    fail "go build failed (see above); is the Go proxy reachable?"
  fi
fi
