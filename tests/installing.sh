# What the install scripts of the tests share; each reads it in its own folder.
#
# They are idempotent and quiet when nothing is to do, so that every test run may call them, also several
# at once. Debian packages are installed only where one of them is missing.

fail() {
  echo "${PWD##*/}/install.sh: $*" >&2
  exit 1
}

stale() { # STAMP SOURCE
  [ ! -e "$1" ] || [ "$1" -ot "$2" ]
}

alone() { # FILE; the lock on it goes when the script ends
  command -v flock >/dev/null || return 0
  exec 9<"$1"
  flock 9
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "this must be done as root: $*"
  fi
}

debian() { # PACKAGE...
  command -v apt-get >/dev/null || fail "missing: $*. There is no apt-get here; install them yourself and run this again."
  # RUNLEVEL=1 keeps packages from starting servers of their own.
  { as_root apt-get update -qq &&
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qq -y --no-install-recommends "$@"; } >&2 ||
    fail "apt-get could not install $*."
}
