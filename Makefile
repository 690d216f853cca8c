# Every target runs on a machine with Go and make; only test-real and soak need more (see the scripts).
.POSIX:
.SUFFIXES:

# The only place with versions of tools and servers that are not in go.mod.
GOLANGCI_LINT_VERSION = v2.15.0
KAFKA_VERSIONS = 3.9.2 4.0.0 4.4.0
NATS_VERSION = 2.15.2

# How long make fuzz stays with each target.
FUZZTIME = 10s

GOLANGCI_LINT = .cache/bin/golangci-lint-$(GOLANGCI_LINT_VERSION)

# How make mutants is narrowed down: BUDGET=2m30s begins no bug after that time, SEED=... says in which order (the
# commit), ONLY="NAME ..." plants these, and FULL=1 runs all tests of a package for each.
BUDGET =
SEED =
ONLY =
FULL =

# Flags of make bench and make profile, such as BENCH="--only bolt --rounds 9": see bench/README.md.
BENCH =

.PHONY: help build test test-real soak mutants lint prose fuzz bench profile always

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

build: ## compile everything, tests included, so that the time of make test is that of the tests
	go build ./...
	go vet -tags real ./...
	go test -race -run '^$$' ./... >/dev/null
	cd bench && go vet ./...

test: ## all tests that need nothing but Go, under the race detector; budget 5 minutes
	@scripts/budget.sh test 5 scripts/go-test.sh -race -count=1 -timeout 7m ./...

test-real: ## tests against real servers, started on loopback and stopped again, and real disks; budget 25 minutes
	@scripts/budget.sh test-real 25 scripts/test-real.sh bolt kafka $(KAFKA_VERSIONS) nats $(NATS_VERSION) redis single sentinel cluster

soak: ## the tests that count high, for an hour; PARTS="bolt-kill ..." for some of them
	@scripts/soak.sh $(PARTS)

mutants: ## plant the bugs of internal/mutants, one at a time, for the tests to notice; budget 6 minutes, of a part (BUDGET=2m30s) 3
	@scripts/budget.sh mutants $(if $(BUDGET),3,6) go run ./internal/mutants/cmd/mutants \
		-budget "$(if $(BUDGET),$(BUDGET),0)" -seed "$(SEED)" -only "$(ONLY)" $(if $(FULL),-full)

lint: $(GOLANGCI_LINT) ## golangci-lint with .golangci.yml, vet for other systems, and make prose; the first run compiles the linter
	@for os in darwin windows; do GOOS=$$os go vet ./store/... || exit; done
	@scripts/budget.sh lint 5 $(GOLANGCI_LINT) run ./...
	@cd bench && ../$(GOLANGCI_LINT) run ./...
	@$(MAKE) prose

prose: ## documents and comments: headless clauses, long lines, dead links, Go that does not compile; budget 1 minute
	@scripts/budget.sh prose 1 go run ./internal/lint/cmd/prose

fuzz: ## each fuzz target for FUZZTIME (10s)
	@scripts/fuzz.sh $(FUZZTIME)

bench: .cache/bin/bench ## compare with peers and with the disk, as bench/README.md says; budget 10 minutes
	@scripts/budget.sh bench 10 .cache/bin/bench $(BENCH)

profile: .cache/bin/bench ## CPU, heap and mutex profiles of the batch path and the Do path, in .cache/profile
	.cache/bin/bench --profile .cache/profile --only bolt --contenders batch,do $(BENCH)

.cache/bin/bench: always
	cd bench && go build -o ../$@ .

always:

$(GOLANGCI_LINT):
	GOBIN=$$PWD/.cache/bin/new go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv .cache/bin/new/golangci-lint $@
