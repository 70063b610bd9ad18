# Exchequer. `make help` lists the targets.

CARGO ?= cargo
TOOLS := $(CURDIR)/.tools
DENY_VERSION := 0.20.2
FUZZ_VERSION := 0.13.2
MUTANTS_VERSION := 27.1.0
FUZZ_SECONDS ?= 60
FAULT_ROUNDS ?= 200

.DEFAULT_GOAL := help
.PHONY: help run quickstart test test-valkey docs test-openapi test-walks test-interop test-faults test-k8s test-image interop
.PHONY: test-observability openapi observability browser client manifests image release reference bench sim fuzz lint mutants

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Build, start the service with a stand-in provider, and show a real exchange
	$(CARGO) run --locked -- dev $(ARGS)

quickstart: ## Start the web app of docs/quickstart.md on http://localhost:3000
	$(CARGO) build --locked
	examples/quickstart/install.sh
	cd examples/quickstart && npm start --silent

test: interop openapi observability ## Run every test; installs what it lacks
	$(CARGO) test --locked --features settable-clock
	$(MAKE) test-valkey
	$(CARGO) test --locked --features settable-clock,aws-lc --lib
	tests/observability/.venv/bin/python tests/observability/check.py
	$(MAKE) docs
	$(MAKE) browser
	$(MAKE) client
	$(MAKE) manifests
	$(MAKE) test-interop

test-valkey: interop ## Run the tests that need a Redis with a Valkey in its place
	@if [ -x tests/interop/valkey/redis-server ]; then set -x; PATH=$(CURDIR)/tests/interop/valkey:$$PATH \
	  $(CARGO) test --locked --features settable-clock --test suite -- \
	  redis_client redis_keys store:: store_redis store_shared key_ring_shared replica_races; \
	  else echo 'SKIPPED: no Valkey here'; fi

test-interop: interop ## Run the verifiers of examples/verify against a live service (ARGS=--write: into docs/verifying.md)
	tests/verifiers/install.sh
	tests/interop/.venv/bin/python tests/verifiers/run.py $(ARGS)

docs: ## Check every link, command and snippet of the documents
	tests/interop/install.sh
	$(CARGO) build --locked --features settable-clock
	tests/interop/.venv/bin/python tests/docs/checker_test.py --quiet
	tests/interop/.venv/bin/python tests/docs/check.py

test-walks: interop ## Three strangers from an empty clone to what they came for; the first time takes minutes
	tests/walks/app.sh
	tests/walks/backend.sh
	tests/walks/platform.sh

test-faults: ## Kill, freeze, fill and rotate for minutes (FAULT_ROUNDS=200, FAULT_SEED=)
	FAULT_ROUNDS=$(FAULT_ROUNDS) $(CARGO) test --locked --features settable-clock --test faults -- \
	  --nocapture --test-threads=8

interop:
	tests/interop/install.sh

browser: # with the binary that `cargo test --features settable-clock` built
	tests/browser/install.sh
	examples/quickstart/install.sh
	cd tests/browser && npm test --silent

client: # the same
	tests/browser/install.sh
	cd clients/typescript && npm test --silent

openapi:
	tests/openapi/install.sh

test-openapi: openapi ## Hold the OpenAPI document against the running service, with schemathesis
	$(CARGO) test --locked --features settable-clock --test suite openapi::

observability:
	tests/observability/install.sh

test-observability: observability ## Test traces, alerts, dashboard and runbooks alone
	tests/observability/.venv/bin/python tests/observability/check.py
	$(CARGO) test --locked --features settable-clock --test suite -- traces dashboards

manifests:
	tests/k8s/install.sh
	tests/k8s/.venv/bin/python tests/k8s/manifests.py

test-k8s: ## Apply k8s/ to a Kubernetes API server that is built here; needs Go 1.26
	tests/k8s/install.sh apiserver
	tests/k8s/.venv/bin/python tests/k8s/apiserver.py

image: ## Build the container image, without a registry or an engine
	image/build.py

test-image: image ## Look into the image, and run it; needs root
	tests/image/image.py

release: ## Make everything that a release hands out, in dist/ (ARGS=--trial: from changes not committed)
	release/build.py $(ARGS)

reference: ## Write docs/reference/, docs/errors.md and exchequer.example.env from the code
	$(CARGO) run --quiet --locked --example reference -- docs .

bench: ## Measure the service beside its bounds, in one run
	benches/run.py $(ARGS)

sim: ## Simulate rotations against ten thousand verifiers; writes the tables and picture of docs/scale.md
	$(CARGO) run --locked --example exchequer-sim -- \
	  $(or $(ARGS),--svg docs/images/rotation.svg --page docs/scale.md)

fuzz: $(TOOLS)/bin/cargo-fuzz ## Fuzz each parser for a minute (FUZZ_SECONDS=60); needs nightly
	set -e; PATH=$(TOOLS)/bin:$$PATH; targets=$$($(CARGO) +nightly fuzz list); for target in $$targets; do \
	  mkdir -p fuzz/corpus/$$target; \
	  $(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target \
	    -- -max_total_time=$(FUZZ_SECONDS) -timeout=5 -rss_limit_mb=1024; \
	done

$(TOOLS)/bin/cargo-fuzz:
	$(CARGO) install --locked --root $(TOOLS) cargo-fuzz@$(FUZZ_VERSION)

# In place: a copy would build everything anew. What the unit tests miss, the first run's exit, is for the suite.
mutants: $(TOOLS)/bin/cargo-mutants ## Change the code that decides, and see a test fail (ARGS='--re policy/app' TESTS=policy::)
	-PATH=$(TOOLS)/bin:$$PATH $(CARGO) mutants --in-place $(ARGS) -- --locked --lib
	PATH=$(TOOLS)/bin:$$PATH $(CARGO) mutants --in-place --iterate $(ARGS) -- --locked --test suite $(TESTS)

$(TOOLS)/bin/cargo-mutants:
	$(CARGO) install --locked --root $(TOOLS) cargo-mutants@$(MUTANTS_VERSION)

lint: $(TOOLS)/bin/cargo-deny ## Format, clippy, docs, licences and known vulnerabilities
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets --features settable-clock -- -D warnings
	$(CARGO) clippy --locked --all-targets --features aws-lc -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --document-private-items
	$(TOOLS)/bin/cargo-deny check bans licenses sources
	@if $(TOOLS)/bin/cargo-deny fetch db >/dev/null 2>&1; then $(TOOLS)/bin/cargo-deny check advisories; \
	  else echo 'SKIPPED: the advisory database cannot be fetched; known vulnerabilities were not checked'; fi

$(TOOLS)/bin/cargo-deny:
	$(CARGO) install --locked --root $(TOOLS) cargo-deny@$(DENY_VERSION)
