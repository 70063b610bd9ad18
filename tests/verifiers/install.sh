#!/usr/bin/env bash
# Builds the backends of examples/verify and the verifiers of this folder: npm packages in node_modules,
# Python's in .venv, the Rust one in target/verify, and where there is Go or Java those too, in bin/ and
# target/ of their folders. tests/interop/install.sh is called first.
#
# What it is: idempotent and quiet when nothing is to do. What it is not: an upgrade tool. Versions are
# those of the manifests and lock files.
set -eu
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
examples=$root/examples/verify

fail() {
  echo "verifiers/install.sh: $*" >&2
  exit 1
}

if command -v flock >/dev/null; then # one at a time; the lock goes when the script ends
  exec 9<package-lock.json
  flock 9
fi

newer() { # STAMP FILE...: whether one of the files is newer than the stamp, or the stamp is not there
  stamp=$1
  shift
  [ ! -e "$stamp" ] || [ -n "$(find "$@" -newer "$stamp" -print -quit)" ]
}

for folder in . "$examples/node"; do
  if newer "$folder/node_modules/.installed" "$folder/package-lock.json"; then
    (cd "$folder" && npm ci --no-audit --no-fund --loglevel=error) >&2 || fail "npm ci failed (see above)."
    touch "$folder/node_modules/.installed"
  fi
done

python=$examples/python
if newer "$python/.venv/.installed" "$python/requirements.txt" || ! "$python/.venv/bin/python" -c 'import fastapi, jwt' 2>/dev/null; then
  python3 -m venv --clear "$python/.venv" &&
    "$python/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$python/requirements.txt" >&2 ||
    fail "pip install failed (see above)."
  touch "$python/.venv/.installed"
fi

# Cargo knows by itself whether there is anything to do.
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/verify \
  "${CARGO:-cargo}" build --quiet --locked --manifest-path "$examples/rust/Cargo.toml" >&2 || fail "cargo build failed (see above)."

here() { # go or java: whether what rows.py wants is here
  ../interop/.venv/bin/python -c 'import rows, sys; sys.exit(bool(rows.missing(sys.argv[1])))' "$1"
}

if here go; then
  for folder in "$examples/go-oidc" "$examples/go-keyfunc" go-oidc-alone; do
    if newer "$folder/bin/server" "$folder/main.go" "$folder/go.sum"; then
      (cd "$folder" && go build -o bin/server .) >&2 || fail "go build failed (see above); is the Go proxy reachable?"
    fi
  done
fi

if here java; then
  for folder in "$examples/spring" "$examples/nimbus"; do
    if newer "$folder/target/.built" "$folder/pom.xml" "$folder/src"; then
      (cd "$folder" && mvn --batch-mode --quiet -Dstyle.color=never package) >&2 || fail "mvn package failed (see above); is Maven Central reachable?"
      touch "$folder/target/.built"
    fi
  done
fi
