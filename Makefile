# Cairn. `make help` says what there is. The two commands that matter: `make demo`, `make test`.

SWIFT ?= swift
SEEDS ?= 10000
COUNT ?= 10000000

# One scratch directory per build that differs in flags, so that none undoes another's work.
release := --configuration release
data-path := CAIRN_TARGETS=data-path $(SWIFT)

# What runs in seconds and has no clock, disk or network in it.
smoke := BlockCoreTests|LogFormatTests|NBDWireTests|NBDSessionTests|ReplicationTests|PeerWireTests|SCSITests|ISCSIWireTests|ISCSISessionTests|FuzzTests|TidyTests
# What the address sanitizer is for: all memory below the control plane.
sanitized := BlockCoreTests|LogFormatTests|LogStoreTests|NBDWireTests|NBDSessionTests|ReplicationTests|PeerWireTests|SCSITests|ISCSIWireTests|ISCSISessionTests|FuzzTests|ReactorTests|SimulationTests|StorageNodeTests
# Those in which more than one thread runs.
threaded := ReactorTests|StorageNodeTests

# No test may hang for ever: the whole run, with its part of the build, has this long.
test-seconds-max := 2100
# Rounds of each way to be killed; `make test` runs a tenth of them.
crash-rounds := 200

.PHONY: acceptance help setup build demo demo-stop test check lint format sim fuzz sanitize bench bench-quick bench-full clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## Install what is missing (Debian packages; checks Swift)
	@.ci/setup

build: setup ## Build the four programs, release
	@$(SWIFT) build $(release)

demo: setup ## Start a cluster, import an image, snapshot, clone, boot a clone
	@.ci/demo

demo-stop: ## Stop the demo's cluster and remove its data
	@.ci/demo stop

# One release build serves programs and tests: no test imports testably, and without
# --disable-testable-imports everything would be compiled a second time, for nothing. The tests of
# the load generator make load, and would make what waits for something late: they go first, alone.
# Few tests run at a time: a thousand that are begun at once have two threads between them on a small
# machine, and whatever waits for an answer within some time waits for all the others first.
test: export SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH := 8
test: setup ## Install what is missing and run all tests
	@$(SWIFT) build $(release)
	@timeout --foreground $(test-seconds-max) \
		$(SWIFT) test $(release) --disable-testable-imports --disable-xctest --filter '^VolbenchTests\.'
	@CAIRN_REQUIRE_ETCD=1 timeout --foreground $(test-seconds-max) \
		$(SWIFT) test $(release) --disable-testable-imports --disable-xctest --skip '^VolbenchTests\.'

acceptance: setup ## Kill the node under load 200 times in each mode (12 min)
	@$(SWIFT) build $(release)
	@CAIRN_CRASH_ROUNDS=$(crash-rounds) \
		$(SWIFT) test $(release) --disable-testable-imports --disable-xctest --filter CrashTests

check: lint ## Lint, layer and tidiness rules, quick tests: before every push
	@$(data-path) test --scratch-path .build/check --disable-xctest --filter '^($(smoke))\.'

lint:
	@$(SWIFT) format lint --strict --parallel --recursive Package.swift Sources Tests

format: ## Format the sources in place
	@$(SWIFT) format --in-place --parallel --recursive Package.swift Sources Tests

sim: setup ## Run the store and the replication under SEEDS=10000 seeds, and a tenth as many full stores
	@$(data-path) run --scratch-path .build/data-path $(release) devtool sim store --seeds $(SEEDS)
	@$(data-path) run --scratch-path .build/data-path $(release) devtool sim store --seeds $$(( $(SEEDS) / 10 )) --crowded
	@$(data-path) run --scratch-path .build/data-path $(release) devtool sim store --seeds $$(( $(SEEDS) / 100 )) --crowded --ops 20000
	@$(data-path) run --scratch-path .build/data-path $(release) devtool sim replication --seeds $(SEEDS)

fuzz: setup ## Send COUNT=10000000 mutated messages to each of the codecs
	@$(data-path) run --scratch-path .build/data-path $(release) devtool fuzz nbd --count $(COUNT)
	@$(data-path) run --scratch-path .build/data-path $(release) devtool fuzz peer --count $(COUNT)
	@$(data-path) run --scratch-path .build/data-path $(release) devtool fuzz iscsi --count $(COUNT)

sanitize: setup ## Data path under the address sanitizer, what has threads under the thread sanitizer
	@LSAN_OPTIONS=suppressions=$(CURDIR)/.ci/leaks.supp $(data-path) test --scratch-path .build/address --sanitize address --disable-xctest --filter '^($(sanitized))\.'
	@$(data-path) test --scratch-path .build/thread --sanitize thread --disable-xctest --filter '^($(threaded))\.'

bench: setup ## Measure beside every peer that is installed, into Docs/benchmarks/REPORT.md (25 min)
	@$(SWIFT) build $(release)
	@Bench/report --output Docs/benchmarks/REPORT.md

bench-quick: setup ## The same in under 3 minutes, into .build/bench: does it work? Not for figures
	@$(SWIFT) build $(release)
	@Bench/report --quick --output .build/bench/REPORT.md

bench-full: setup ## All of it, TCP and what grows with scale, too, into Docs/benchmarks (2 hours, 35 GiB of disk)
	@$(SWIFT) build $(release)
	@Bench/report --output Docs/benchmarks/REPORT.md
	@Bench/compare.py --output Docs/benchmarks/nbd.md
	@Bench/scale --output Docs/benchmarks/scale.md

clean: ## Remove everything built, and the demo's cluster
	@.ci/demo stop 2>/dev/null || true
	@rm -rf .build
