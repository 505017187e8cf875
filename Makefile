# Everything a newcomer, a developer and CI run. `make` alone lists it.

GO        ?= go
BIN       := bin/evernode
SOURCES   := $(shell find . -name '*.go' -not -path './node_modules/*') go.mod go.sum
# Long enough for the slowest package on a small machine, short enough to notice a hang.
TIMEOUT   ?= 15m
# Packages whose tests are worth the cost of the race detector and quick under it.
RACE      ?= ./hotpocket/config ./hotpocket/control ./hotpocket/nodelog ./hotpocket/gateway ./hotpocket/mesh ./sdk/client ./devkit ./xahau/client
PKGS      ?= ./...
# The version comes from git where git is there and trusts this folder.
VCS       := $(shell git status >/dev/null 2>&1 && echo auto || echo false)

.PHONY: help demo build test check bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

build: $(BIN) ## build the one static binary, bin/evernode

# No cgo, so the binary runs on any Linux.
$(BIN): $(SOURCES)
	@scripts/need go
	@echo "building $(BIN)"
	@CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=$(VCS) -o $(BIN) ./cmd/evernode

demo: build ## four nodes, two users, a kill and a recovery, in under a minute
	@mkdir -p bin/kvstore
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/kvstore/kvstore ./examples/kvstore
	@cp examples/kvstore/hp.cfg.override bin/kvstore/
	@$(BIN) dev demo bin/kvstore

test: ## all tests; installs missing tools, skips with a reason what cannot run here
	@scripts/need go gcc node git sqlite3 mkfs.ext4 clang wasm-ld wasm-opt
	@echo "go test $(PKGS)"
	@$(GO) test -timeout $(TIMEOUT) -json $(PKGS) | $(GO) run ./scripts/testcount $(if $(SUMMARY),-summary $(SUMMARY))
	@if [ -n "$(RACE)" ] && scripts/need --quiet gcc; then \
		echo "go test -race $(RACE)"; \
		CGO_ENABLED=1 $(GO) test -race -timeout $(TIMEOUT) $(RACE) > .race.log 2>&1 \
			&& { rm -f .race.log; echo "no data race found"; } \
			|| { cat .race.log; rm -f .race.log; exit 1; }; \
	fi

check: ## format, vet, staticcheck, known vulnerabilities
	@scripts/need go
	@scripts/check

bench: build ## measure this machine and print a table beside what must hold
	@scripts/need go gcc
	@$(GO) run ./bench -bin $(BIN)

clean: ## remove what was built
	rm -rf bin
