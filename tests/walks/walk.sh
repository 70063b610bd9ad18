# What the walks share: an empty clone, processes that end with the walk, and sentences about what must be seen.
# To be sourced; WALK names the walk. The builds of all walks share a target folder
# (WALKS_TARGET, target/walks unless set), so that only the first is long.
# Needs bash, git, curl, and what the README names.
set -eu
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TARGET=${WALKS_TARGET:-$ROOT/target/walks}
SCRATCH=$(mktemp -d)
BEGAN=$SECONDS
STARTED=()
PATIENCE=${PATIENCE:-1800} # seconds until something counts as not coming; the first build takes minutes

end() {
  code=$?
  for pid in "${STARTED[@]}"; do kill -- "-$pid" 2>/dev/null || true; done
  if [ "$code" -ne 0 ]; then tail -n 30 "$SCRATCH"/*.log >&2 2>/dev/null || true; fi
  rm -rf "$SCRATCH"
  exit "$code"
}
trap end EXIT

say() { printf '%s %4d s  %s\n' "$WALK" "$((SECONDS - BEGAN))" "$*"; }

wrong() {
  echo "$WALK: $*" >&2
  exit 1
}

# The repository as a stranger gets it.
clone() {
  git clone --quiet --no-local "$ROOT" "$SCRATCH/exchequer"
  mkdir -p "$TARGET"
  ln -s "$TARGET" "$SCRATCH/exchequer/target"
  cd "$SCRATCH/exchequer"
  say "cloned"
}

# Starts a command in a process group of its own; its output is NAME.log.
start() { # NAME COMMAND…
  local name=$1
  shift
  set -m
  "$@" >"$SCRATCH/$name.log" 2>&1 &
  set +m
  STARTED+=("$!")
}

stop() { # NAME: the last one started
  kill -- "-${STARTED[-1]}" 2>/dev/null || true
  wait "${STARTED[-1]}" 2>/dev/null || true
  unset 'STARTED[-1]'
}

# Waits until NAME.log has this text.
appears() { # NAME TEXT
  local last=$((SECONDS + PATIENCE))
  until grep -qF -- "$2" "$SCRATCH/$1.log" 2>/dev/null; do
    [ "$SECONDS" -lt "$last" ] || wrong "$1 does not say: $2"
    kill -0 "${STARTED[-1]}" 2>/dev/null || grep -qF -- "$2" "$SCRATCH/$1.log" || wrong "$1 ended without saying: $2"
    sleep 0.2
  done
}

# Waits until a command succeeds.
until_ok() { # COMMAND…
  local last=$((SECONDS + 60))
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$last" ] || wrong "does not come to pass: $*"
    sleep 0.2
  done
}

# The stranger must see this text in what they were given.
sees() { # GIVEN TEXT…
  local given=$1 text
  shift
  for text in "$@"; do
    case $given in *"$text"*) ;; *) wrong "does not show: $text"$'\n'"$given" ;; esac
  done
}

status() { # EXPECTED CURL-ARGUMENTS…
  local expected=$1 found
  shift
  found=$(curl -s -o "$SCRATCH/body" -w '%{http_code}' "$@")
  [ "$found" = "$expected" ] || wrong "$* is answered with $found, not $expected: $(cat "$SCRATCH/body")"
}

member() { # JSON NAME
  printf '%s' "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$2"
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Any free ports, for what would take the usual ones.
export EXCHEQUER_LISTEN=127.0.0.1:0 EXCHEQUER_ADMIN_LISTEN=127.0.0.1:0
