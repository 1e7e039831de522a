# Works with GNU make and FreeBSD's make.

PREFIX?=	/usr/local
SYSCONFDIR?=	$(PREFIX)/etc
DESTDIR?=
GO?=		go
VERSION?=	0.1.0
LDFLAGS=	-s -w -X main.version=$(VERSION) -X main.defaultConfig=$(SYSCONFDIR)/ggated-virstor.conf
BINDIR=		bin

all: build

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o $(BINDIR)/ggated-virstor ./ggated-virstor
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o $(BINDIR)/gvirstor ./gvirstor
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o $(BINDIR)/nbdio ./tests/nbdio
	for shell in bash zsh fish; do $(BINDIR)/gvirstor completion $$shell >$(BINDIR)/completion.$$shell; done

demo: build
	$(GO) run ./tests/demo -bin $(BINDIR)

test:
	sh tests/run.sh

cross:
	sh tests/cross.sh

lint:
	sh tests/lint.sh

install: build
	SYSCONFDIR="$(SYSCONFDIR)" sh tests/install.sh install "$(DESTDIR)" "$(PREFIX)"

uninstall:
	SYSCONFDIR="$(SYSCONFDIR)" sh tests/install.sh uninstall "$(DESTDIR)" "$(PREFIX)"

# The cases of tests/ under kyua(1); those of tests/freebsd need root there.
kyua: build
	sh tests/kyua.sh

# The format, the engine, the utility and the NBD server on other processors, by qemu-user:
# make test-arch ARCH=s390x, or a few minutes of all: make test-arch QUICK=yes
test-arch:
	ARCH="$(ARCH)" QUICK="$(QUICK)" GO="$(GO)" sh tests/arch.sh

# Tarballs to be unpacked at the root: FreeBSD's and Linux's.
package:
	GO="$(GO)" sh tests/package.sh "$(VERSION)" "$(PREFIX)"

# deb and rpm for Linux, in dist.
packages:
	GO="$(GO)" sh tests/packages.sh "$(VERSION)"

clean:
	rm -rf $(BINDIR) dist

.PHONY: all build demo test cross lint install uninstall clean kyua package packages test-arch

bench: build
	$(GO) run ./tests/bench -bin $(BINDIR) $(BENCHFLAGS)
	$(GO) run ./tests/bench -bin $(BINDIR) -moving 33554432 $(BENCHFLAGS)
	$(GO) run ./tests/bench -bin $(BINDIR) -scale $(BENCHFLAGS)
	$(GO) run ./tests/bench -bin $(BINDIR) -remote memory $(BENCHFLAGS)

# This tree beside another revision, in turn: make bench-compare OLD=v1.0
bench-compare:
	GO="$(GO)" sh tests/bench/compare.sh "$(OLD)"

# Devices of geom_gate(4) beside ggatel(8) and the kernel class; as root on FreeBSD.
bench-gate: build
	sh tests/bench/gate.sh -b $(BINDIR)

# Crash states, failing I/O and deaths of the daemon: make soak DURATION=1h SEED=7
soak:
	DURATION="$(DURATION)" SEED="$(SEED)" sh tests/soak.sh

# A hundred deaths of a worker, and upgrades, under NBD clients that reconnect; and a hundred
# of the servers of a volume's images on a Ceph: make rounds, or make rounds ROUNDS=1000
ROUNDS?=	100
rounds:
	$(GO) test ./tests/blackbox -run 'Reconnect|OnCeph' -count 1 -v -timeout 24h -endings $(ROUNDS) -ceph.cuts $(ROUNDS)

# Every fuzz target in turn: make fuzz DURATION=1h, or so many executions in all:
# make fuzz EXECS=100000000
fuzz:
	DURATION="$(DURATION)" EXECS="$(EXECS)" CORPUS="$(CORPUS)" GO="$(GO)" sh tests/fuzz.sh

.PHONY: bench bench-compare bench-gate soak rounds fuzz
