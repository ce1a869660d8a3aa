# SPDX-License-Identifier: Apache-2.0
#
# `make` alone prints the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

# sudo's PATH leaves out /usr/local/go/bin, where Go's own instructions install it.
GO ?= $(or $(shell command -v go),$(wildcard /usr/local/go/bin/go),go)
export GO
GO_VERSION := 1.26.6
PATH := $(patsubst %/,%,$(dir $(GO))):$(PATH)
export PATH

# The version comes from git here, not from -buildvcs: Go refuses to stamp a tree
# that belongs to another user, which is what `sudo make` sees.
VERSION ?= $(shell git -c safe.directory=$(CURDIR) describe --tags --always --dirty 2>/dev/null || echo unknown)
export GOFLAGS := $(filter-out -buildvcs%,$(GOFLAGS)) -buildvcs=false
LDFLAGS := -s -w -X main.version=$(VERSION)
BINARIES := linkpin linkpin-hook linkpin-cni linkpin-nri

GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := bin/tools/golangci-lint-$(GOLANGCI_LINT_VERSION)

PREFIX ?= /usr/local
DESTDIR ?=
BINDIR ?= $(PREFIX)/bin
# Where runtimes look for CNI plugins, whatever the prefix.
CNIDIR ?= /opt/cni/bin
# linkpin-nri waits here for `linkpin install nri`: in the runtimes' plugin directory
# it would be started.
LIBEXECDIR ?= $(PREFIX)/libexec/linkpin
# A timer that runs `linkpin verify --repair`; off until somebody enables it.
SYSTEMDDIR ?= $(PREFIX)/lib/systemd/system

FUZZTIME ?= 20s
TESTFLAGS ?=

##@ Build
.PHONY: help
help: ## print this list
	@awk 'BEGIN { FS = ":.*## "; print "usage: make TARGET" } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: go ## static binaries: bin/linkpin, bin/linkpin-hook, bin/linkpin-cni, bin/linkpin-nri
	CGO_ENABLED=0 "$(GO)" build -trimpath -ldflags "$(LDFLAGS)" -o bin/ $(BINARIES:%=./cmd/%)
	@$(OWN)

.PHONY: install
install: ## install what `make build` built below DESTDIR (PREFIX, CNIDIR, LIBEXECDIR, SYSTEMDDIR)
	@for b in $(BINARIES); do [ -x bin/$$b ] || { echo "make install: bin/$$b is missing; run: make build" >&2; exit 1; }; done
	install -D -m 0755 bin/linkpin "$(DESTDIR)$(BINDIR)/linkpin"
	install -D -m 0755 bin/linkpin-hook "$(DESTDIR)$(BINDIR)/linkpin-hook"
	install -D -m 0755 bin/linkpin-cni "$(DESTDIR)$(CNIDIR)/linkpin-cni"
	install -D -m 0755 bin/linkpin-nri "$(DESTDIR)$(LIBEXECDIR)/linkpin-nri"
	install -D -m 0644 systemd/linkpin-verify.timer "$(DESTDIR)$(SYSTEMDDIR)/linkpin-verify.timer"
	sed 's|^ExecStart=/usr/local/bin/|ExecStart=$(BINDIR)/|' systemd/linkpin-verify.service >"$(DESTDIR)$(SYSTEMDDIR)/linkpin-verify.service"
	chmod 0644 "$(DESTDIR)$(SYSTEMDDIR)/linkpin-verify.service"

.PHONY: generate
generate: go ## compile the eBPF programs and write everything else that is generated
	@hack/deps generate
	"$(GO)" generate ./...

.PHONY: clean
clean: ## remove bin/
	rm -rf bin

##@ Check
.PHONY: test
test: root go ## everything, with real runtimes and the race detector (root)
	@hack/deps test
	@echo "==> go mod download"
	"$(GO)" mod download
	hack/test $(TESTFLAGS)

.PHONY: test-fast
test-fast: root go ## what needs no container runtime, without the race detector (root)
	@"$(GO)" mod download
	@echo "==> all packages but integration, in their own namespaces"
	GOPROXY=off hack/ns "$(GO)" test $(TESTFLAGS) $$("$(GO)" list ./... | grep -v '/integration')

.PHONY: test-extended
test-extended: root go ## containerd 2, CRI-O and dockerd, with NRI and CDI; builds them first (root)
	@hack/deps test extended
	hack/extended/build bin/tools/extended
	@$(OWN)
	"$(GO)" mod download
	GOPROXY=off hack/ns "$(GO)" test -tags extended -count=1 -timeout 20m $(TESTFLAGS) -run 'TestExtended|TestDocker' ./integration
	@# What the installer writes is what containerd 2 reads.
	GOPROXY=off "$(GO)" test -count=1 $(TESTFLAGS) -run TestContainerdRealDump ./hook/install -args -containerd.binary "$(CURDIR)/bin/tools/extended/containerd"

.PHONY: soak
soak: root go ## 2,000 containers that come and go, a third of them killed; minutes (root)
	@hack/deps test
	"$(GO)" mod download
	GOPROXY=off hack/ns "$(GO)" test -count=1 -timeout 30m -v $(TESTFLAGS) -run TestSoak ./integration -args -soak.containers=2000

.PHONY: test-faults
test-faults: root go ## kill linkpin at every system call that matters, and make each of them fail (root)
	@hack/deps test
	"$(GO)" mod download
	GOPROXY=off hack/ns "$(GO)" test -count=1 -timeout 3h -v $(TESTFLAGS) -run TestFaults ./integration/faults -args -faults.all

.PHONY: test-vm
test-vm: root go ## Debian 12's 6.1 kernel in QEMU: no TCX, all cgroup v2 controllers, BPF LSM (root)
	@hack/deps test vm
	"$(GO)" mod download
	GOPROXY=off hack/vm/run bin/tools/vm
	@$(OWN)

.PHONY: lint
lint: go $(GOLANGCI_LINT) ## golangci-lint, go vet for arm64, shellcheck
	@hack/deps lint
	$(GOLANGCI_LINT) run --allow-serial-runners ./...
	GOARCH=arm64 CGO_ENABLED=0 "$(GO)" vet ./...
	"$(GO)" vet -tags extended,vm ./integration
	@# Scripts have no suffix: they are found by their first line.
	grep -rlE --exclude-dir=.git --exclude-dir=bin '^#!/bin/(ba)?sh' hack .ci | xargs shellcheck

.PHONY: generate-check
generate-check: go ## fail if a generated file is not what its sources give
	@hack/deps generate
	@hack/generate-check

.PHONY: fuzz
fuzz: go ## every fuzz test for FUZZTIME (20s)
	@hack/fuzz $(FUZZTIME)

##@ See it work
.PHONY: demo
demo: root build ## a real container under its programs, step by step (root)
	@hack/deps demo
	@hack/demo/run

.PHONY: bench
bench: root build ## what linkpin adds to the start of a container (root)
	@hack/deps test
	@hack/bench/run

##@ Set up
.PHONY: deps
deps: ## install the Debian packages that the targets above need (root if any is missing)
	@hack/deps

# Tools are pinned here rather than in go.mod: the module's own dependencies stay few.
$(GOLANGCI_LINT):
	@mkdir -p bin/tools
	@echo "==> go install golangci-lint $(GOLANGCI_LINT_VERSION)"
	@rm -rf bin/tools/install && mkdir bin/tools/install
	GOBIN="$(CURDIR)/bin/tools/install" "$(GO)" install -trimpath github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv bin/tools/install/golangci-lint $@ && rmdir bin/tools/install
	@$(OWN)

# What `sudo make` leaves in bin/ belongs to the user who called it.
OWN = if [ -n "$${SUDO_UID:-}" ] && [ -d bin ]; then chown -Rh "$$SUDO_UID:$$SUDO_GID" bin; fi

.PHONY: go
go:
	@version=$$("$(GO)" env GOVERSION 2>/dev/null) || { \
		echo "make: Go is not installed; see https://go.dev/doc/install (needed: Go $(GO_VERSION) or newer)" >&2; exit 1; }; \
	newest=$$(printf 'go%s\n%s\n' '$(GO_VERSION)' "$$version" | sort -V | tail -n1); \
	[ "$$newest" = "$$version" ] || { \
		echo "make: $$version is too old, Go $(GO_VERSION) or newer is needed; see https://go.dev/doc/install" >&2; exit 1; }

.PHONY: go-version
go-version: go
	@"$(GO)" version

.PHONY: root
root:
	@[ "$$(id -u)" = 0 ] || { echo "make: eBPF programs, namespaces and containers need root; run: sudo make $(MAKECMDGOALS)" >&2; exit 1; }
