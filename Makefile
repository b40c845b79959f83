# A thin face over cargo and scripts/. `make run` and `make test` do all the set-up a fresh machine needs.

.PHONY: help setup run test lint build build-all build-all-docker static keys publish publish-version \
	publish-latestVersions publish-latest-alias promote release rollout bump-patch bump-minor bump-major \
	bench bench-wamp fuzz interop clean

help:
	@echo "make run    start a studio and a device here, install a demo app, follow its log (Ctrl-C ends it)"
	@echo "make test   set-up, then all tests against real Docker, a real registry and a real Crossbar.io"
	@echo "make lint   formatting, clippy, docs, dependency bans"
	@echo "make build  static release binaries for this machine in build/"
	@echo "make build-all  the same for every platform of the file targets; make build-all-docker in a container"
	@echo "make static  build for linux/amd64 and linux/arm64, look at the sizes and run both"
	@echo "make publish BUCKET=…  sign build/ and bring it into a bucket; live with make promote BUCKET=… (docs/releasing.md)"
	@echo "make bench  the figures of docs/SPECIFICATION.md"
	@echo "make bench-wamp  those of the WAMP router, beside Crossbar.io's"
	@echo "make fuzz   the WAMP codecs, the router's receive path and the reader of container logs, a minute each"
	@echo "make interop  peers that need more than the product does: wamp_async"

run:
	@scripts/setup run
	@scripts/demo

test:
	@scripts/setup test
	@scripts/test

lint:
	@scripts/lint

build:
	@scripts/build

build-all:
	@scripts/build-all

build-all-docker:
	@scripts/build-all-docker

static:
	@scripts/setup static
	@scripts/static

# Of releases: docs/releasing.md. BUCKET is a directory, s3://… or gs://….

keys:
	@scripts/publish keys "$(or $(SECRET),$(error name a file outside of this repository: make keys SECRET=FILE))" \
		"$(or $(PUBLIC),release/current.pub)"

publish:
	@scripts/publish publish "$(BUCKET)"

publish-version:
	@scripts/publish version "$(BUCKET)"

# The release gate: devices take what the list names.
publish-latestVersions:
	@scripts/publish versions "$(BUCKET)"

publish-latest-alias:
	@scripts/publish latest "$(BUCKET)"

# The gate first: when it refuses the list, nothing changes.
release:
	@scripts/publish versions "$(BUCKET)"
	@scripts/publish version "$(BUCKET)"

promote:
	@scripts/publish versions "$(BUCKET)" --dry-run
	@scripts/publish latest "$(BUCKET)"
	@scripts/publish version "$(BUCKET)"
	@scripts/publish versions "$(BUCKET)"

rollout:
	@scripts/rollout "$(BUCKET)" "$(or $(BUILDER),build-all-docker)"

bump-patch bump-minor bump-major:
	@scripts/bump $(@:bump-%=%)

bench:
	@scripts/setup bench
	@scripts/bench

bench-wamp:
	@scripts/setup test
	@scripts/bench-wamp

fuzz:
	@scripts/fuzz

interop:
	@scripts/setup interop
	@scripts/interop

clean:
	cargo clean
