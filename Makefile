# A thin face over cargo and scripts/. `make run` and `make test` do all the set-up a fresh machine needs.

.PHONY: help setup run test lint build bench bench-wamp fuzz interop clean

help:
	@echo "make run    start a studio and a device here, install a demo app, follow its log (Ctrl-C ends it)"
	@echo "make test   set-up, then all tests against real Docker, a real registry and a real Crossbar.io"
	@echo "make lint   formatting, clippy, docs, dependency bans"
	@echo "make build  static release binaries in build/"
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
