# Every target installs what it lacks (scripts/install-needs). `make help` lists them.
SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:$(PATH)
# Always of the whole workspace: with one package alone cargo chooses other features for what they share, and builds all of it again.
# Most tests wait more than they compute: for a wait to pass, for a disk, for another process.
NEXTEST := cargo nextest run --locked --workspace --test-threads $(shell echo $$((2 * $$(nproc))))
# Everything but `build` is for the machine that it runs on, which is an x86_64.
ARCH := x86_64
TARGET := $(ARCH)-unknown-linux-musl
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/imprint

# Each target uses all processors by itself, and the fast tests come first.
.NOTPARALLEL:
.PHONY: help build build-x86_64 build-aarch64 agent-aarch64 install demo demo-serial demo-stateless demo-pxe test test-fast test-vm test-packages test-loaded bench bench-quick bench-boot bench-readme lint docs fuzz-smoke fuzz-long check-repro deb dist clean
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
BUNDLE := imprint-$(VERSION)-$(ARCH)
DEB_ARCH := $(if $(filter aarch64,$(ARCH)),arm64,amd64)

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## build       static agent and host tool in dist/x86_64; with ARCH=aarch64 in dist/aarch64
build: build-$(ARCH)
	@mkdir -p dist/$(ARCH)
	@cp target/$(TARGET)/agent/imprint target/$(TARGET)/host/imprint-host dist/$(ARCH)/
	@ls -l dist/$(ARCH) | awk 'NR > 1 { print $$5, "dist/$(ARCH)/" $$9 }'

build-x86_64:
	@scripts/install-needs build
	cargo build --locked --profile agent -p imprint --target $(TARGET)
	cargo build --locked --profile host -p imprint-host --target $(TARGET)

# Built with another compiler, for a machine that is not there: run once, emulated, on real bytes.
build-aarch64: export PATH := $(CACHE)/zig/bin:$(PATH)
build-aarch64:
	@scripts/install-needs aarch64
	cargo zigbuild --locked --profile agent -p imprint --target $(TARGET)
	cargo zigbuild --locked --profile host -p imprint-host --target $(TARGET)
	@scripts/check-aarch64 target/$(TARGET)/agent/imprint target/$(TARGET)/host/imprint-host

# The agent alone, for the arm64 machines of the tests.
agent-aarch64: export PATH := $(CACHE)/zig/bin:$(PATH)
agent-aarch64:
	@scripts/install-needs aarch64
	cargo zigbuild --locked --profile agent -p imprint --target aarch64-unknown-linux-musl
	@mkdir -p dist/aarch64
	@cp target/aarch64-unknown-linux-musl/agent/imprint dist/aarch64/

## install     what make build built, into DESTDIR/usr: programs, units, dracut module, hooks, manual pages, docs
# It builds nothing, so that root needs no compiler. The prefix is /usr: the units and the dracut module name it. On the
# running system (no DESTDIR) it also makes the server's user and state directory.
BIN := dist/$(ARCH)
install: USR = $(DESTDIR)/usr
install:
	@for program in imprint imprint-host; do \
		test -x $(BIN)/$$program || { echo "make install: $(BIN)/$$program is not there: run make build first" >&2; exit 1; }; \
	done
	install -D -m 755 -t $(USR)/bin $(BIN)/imprint $(BIN)/imprint-host
	install -D -m 644 -t $(USR)/lib/systemd/system systemd/*.service systemd/*.timer systemd/*.target
	install -D -m 644 systemd/imprint-host.sysusers $(USR)/lib/sysusers.d/imprint-host.conf
	install -D -m 644 systemd/imprint-host.tmpfiles $(USR)/lib/tmpfiles.d/imprint-host.conf
	install -D -m 755 -t $(USR)/lib/dracut/modules.d/50imprint dracut/50imprint/*.sh
	install -D -m 644 -t $(USR)/lib/dracut/modules.d/50imprint dracut/50imprint/*.conf
	cd initramfs && for file in $$(find hooks scripts -type f); do install -D -m 755 $$file $(abspath $(USR))/share/initramfs-tools/$$file; done
	for folder in install hooks; do install -D -m 755 -t $(USR)/lib/initcpio/$$folder mkinitcpio/$$folder/*; done
	for page in man/*; do install -D -m 644 -t $(USR)/share/man/man$${page##*.} $$page; done
	install -D -m 644 -t $(USR)/share/doc/imprint README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md LICENSE-*
	install -D -m 644 -t $(USR)/share/doc/imprint/docs docs/*
	@test -n "$(DESTDIR)" || ! command -v systemd-sysusers >/dev/null || \
		{ systemd-sysusers imprint-host.conf && systemd-tmpfiles --create imprint-host.conf; }

## demo        a real kernel boots and comes up with its own certificate
demo: export DEMO_START := $(shell date +%s.%N)
demo: build
	@scripts/install-needs vm
	@scripts/demo

## demo-serial the same over a BMC's serial-over-LAN, without a network
demo-serial: export DEMO_START := $(shell date +%s.%N)
demo-serial: build
	@scripts/install-needs vm sol
	@scripts/demo-serial

## demo-stateless a node without a disk of its own gets its configuration: asked at the console, approved, applied; then again without anybody
demo-stateless: export DEMO_START := $(shell date +%s.%N)
demo-stateless: build
	@scripts/install-needs vm net
	@scripts/demo-stateless

## demo-pxe    two nodes boot over the network, one by BIOS and one by UEFI, from one image, each with its own payload
demo-pxe: export DEMO_START := $(shell date +%s.%N)
demo-pxe: build
	@scripts/install-needs vm pxe
	@scripts/demo-pxe

## test        all tests: test-fast, test-vm, test-packages, bench-quick
test: test-fast test-vm test-packages bench-quick

## test-fast   lints, pure tests, loopback, network namespaces
test-fast: lint
	@scripts/install-needs build test clients python
	cargo build --locked --workspace --bins --tests
	$(NEXTEST) -E 'not (binary(vm) or binary(packages))'

## test-vm     real kernels in QEMU
test-vm: build agent-aarch64
	@scripts/install-needs vm test sol python vsock pxe
	cargo build --locked --workspace --bins --tests
	@scripts/vm-images stable >/dev/null
	@scripts/vm-images backports >/dev/null
	@scripts/vm-images generic >/dev/null
	@scripts/arm64-images >/dev/null
	@scripts/dracut-ng >/dev/null
	$(NEXTEST) -E 'binary(vm)'

## test-packages Debian packages, installed, upgraded and purged in a chroot; bills of materials
test-packages: build agent-aarch64
	@scripts/install-needs deb test
	@scripts/debian-chroot >/dev/null
	cargo build --locked --workspace --bins --tests
	$(NEXTEST) -E 'binary(packages)'

## test-loaded make test three times while busy loops hold all processors
test-loaded:
	@scripts/under-load 3 make test

## lint        formatting, clippy, manual pages, shellcheck, and what the dependencies may be
lint:
	@scripts/install-needs build lint
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	mandoc -T lint -W warning man/*
	shellcheck -x $$(git ls-files | xargs grep -lE '^#!.*\b(a|ba)?sh$$')
	cargo deny --locked check --hide-inclusion-graph bans licenses sources

## docs        writes anew what pages have from tables in the program; test-fast compares
docs:
	@scripts/install-needs build test
	IMPRINT_WRITE_DOCS=1 $(NEXTEST) -E 'test(pure::docs)'

## bench       every bar beside its peer; target/bench/results.json
bench: build
	@scripts/install-needs bench vm
	@benches/bench.py

## bench-quick every row of the bench with few runs: counts and sizes must hold, times are not judged
bench-quick: build
	@scripts/install-needs bench vm
	@benches/bench.py --quick

## bench-boot  how long a boot waits for its identity, beside a script with openssl and curl; half an hour, not in make test
bench-boot: build
	@scripts/install-needs bench vm
	@benches/boot.py

## bench-readme writes what the last make bench and make bench-boot measured into docs/benchmarks.md, docs/images.md and README.md
bench-readme:
	@benches/readme.py

## fuzz-smoke  every fuzz target: its corpus, and a few seconds
fuzz-smoke:
	@scripts/install-needs build fuzz
	@fuzz/run smoke

## fuzz-long   every fuzz target for 10 minutes
fuzz-long:
	@scripts/install-needs build fuzz
	@fuzz/run long

## check-repro two builds in two places are the same bytes: agent, host tool, packages, archive, bills of materials
check-repro:
	@scripts/install-needs build deb vm
	@scripts/check-repro

## deb         Debian packages in dist, of what make build built: imprint, imprint-dracut, imprint-initramfs-tools, imprint-host
deb: build
	@scripts/install-needs deb
	@scripts/make-deb $(DEB_ARCH) dist/$(ARCH) dist

## dist        what is given away, in dist: an archive with all that an image builder installs, packages, bills of materials, checksums
dist: deb
	@scripts/install-needs vm
	@scripts/make-dist $(ARCH)

clean:
	rm -rf target dist fuzz/target
