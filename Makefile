# make demo [ARGS=--once]   show the whole product; make test   prove it.
# Both install what they need from the distribution's packages and say so.

.DELETE_ON_ERROR:
.PHONY: build demo demo-kernel test test-cves test-cves-kernel packages lint check fmt vet staticcheck vuln gotest assets generate need-demo need-demo-kernel need-test need-bench need-load bench-userspace bench-kernel load-userspace fuzz clean FORCE

VERSION := 0.1.0
ARCH    := amd64
ARGS    :=
DEB     := dist/livemend-agent_$(VERSION)_$(ARCH).deb
TOOL    := go tool -modfile=tools/go.mod
FLAGS   := -trimpath -buildvcs=false -ldflags='-s -w -X main.version=$(VERSION)'

# Go's own cache knows what is up to date, so the programs are always asked for.
build: bin/livemend bin/livemend-agent

bin/livemend: assets FORCE
	@CGO_ENABLED=0 go build $(FLAGS) -o $@ ./cmd/livemend

bin/livemend-agent: FORCE
	@packaging/build-agent.sh $@ $(VERSION) $(ARCH)

bin/livemend-demo: FORCE
	@CGO_ENABLED=0 go build $(FLAGS) -o $@ ./demo

bin/livemend-demo-kernel: FORCE
	@CGO_ENABLED=0 go build $(FLAGS) -o $@ ./demo/kernel

packages: $(DEB)

$(DEB): bin/livemend-agent $(wildcard packaging/agent/*) packaging/build-deb.sh
	@packaging/build-deb.sh bin/livemend-agent $(VERSION) $(ARCH) dist
	@printf '%s: %s bytes\n' $@ "$$(stat -c %s $@)"

# Browser assets come by npm with a lock file; nothing is fetched when they are there.
assets:
	@platform/web/assets.sh

need-demo need-demo-kernel need-test need-bench need-load: need-%:
	@tools/need.sh $*

demo-kernel: need-demo-kernel
	@echo "building"
	@$(MAKE) --no-print-directory build packages bin/livemend-demo-kernel
	@exec bin/livemend-demo-kernel $(ARGS)

demo: need-demo
	@echo "building"
	@$(MAKE) --no-print-directory build packages bin/livemend-demo
	@if [ "$$(id -u)" = 0 ]; then exec bin/livemend-demo $(ARGS); else exec sudo bin/livemend-demo $(ARGS); fi

test: need-test
	@$(MAKE) --no-print-directory build packages lint gotest

lint: fmt vet staticcheck vuln

fmt:
	@bad=$$(git ls-files -co --exclude-standard '*.go' | tr '\n' '\0' | xargs -0 gofmt -l); \
	if [ -n "$$bad" ]; then echo "not formatted (run gofmt -w):"; echo "$$bad"; exit 1; fi

vet:
	go vet ./...

staticcheck:
	$(TOOL) staticcheck ./...

vuln:
	@tools/vuln.sh

# The scanner reports of others lie beside the checkout during development only;
# tests that read them say that they are skipped without. The demonstration
# measures, so it runs by itself; what its browser saw is kept in screenshots.
gotest:
	@if [ -z "$$LIVEMEND_SAMPLES" ] && [ -d ../shared/samples/scans ]; then \
		LIVEMEND_SAMPLES=$$(cd ../shared/samples/scans && pwd); export LIVEMEND_SAMPLES; fi; \
	go test -race -timeout 15m $$(go list ./... | grep -v -e '/demo$$' -e '/demo/kernel$$')
	LIVEMEND_PROGRAMS=$$(pwd) LIVEMEND_SCREENSHOTS=$$(pwd)/screenshots go test -race -p 1 -timeout 15m ./demo ./demo/kernel

# Every real fix in docs/fixes.md, built from source packages and applied: about
# an hour. What is finished stays in the folder, so that the next run goes on.
CVES := /var/tmp/livemend-cves
test-cves: need-test
	mkdir -p $(CVES)
	LIVEMEND_TEST_CVES=1 LIVEMEND_TEST_CVES_WORK=$(CVES) go test -v -count=1 -timeout 4h ./author/debian/fixes

# Every real fix in docs/kernel-fixes.md, built from source packages, loaded into
# guests and asked for, and every refusal of the kernel's author tools: about half
# an hour. Packages and sources stay in the cache.
test-cves-kernel: need-test
	LIVEMEND_TEST_CVES=1 go test -v -count=1 -timeout 2h ./author/kernel/...

# Figures of live patching processes, and the kernel of a guest; they mean
# something on a quiet machine. In the last patches go on and off 1,000 times
# under load, for some minutes.
bench-userspace: need-bench
	go test -run '^$$' -bench Userspace -benchtime 1x ./agent/userspace

bench-kernel: need-bench
	go test -run '^$$' -bench Kernel -benchtime 1x ./agent/kernel

load-userspace: need-load
	LIVEMEND_LOAD_ROUNDS=1000 go test -count=1 -v -timeout 30m ./agent/userspace/load

# Every reader of what comes from outside, each for FUZZTIME.
FUZZTIME := 20s
fuzz:
	@go test -list '^Fuzz' ./... | awk '/^Fuzz/ { names[++n] = $$1 } /^ok/ { for (i = 1; i <= n; i++) print $$2, names[i]; n = 0 }' | \
	while read -r package name; do \
		echo "$$package $$name"; go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$package" || exit 1; done

# Go code made from page templates is committed; run this after changing one.
generate:
	$(TOOL) templ generate -path platform/web

clean:
	rm -rf bin dist build screenshots platform/web/assets/vendor node_modules
