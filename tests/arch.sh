#!/bin/sh
# The format, the engine with a slice of its crash states, the utility and the NBD server
# on other processors, run by qemu-user: ARCH lists them (default: all). s390x has the
# other byte order. QUICK=yes runs of each the format's golden bytes, both byte orders in
# the engine and one kind of crash state, two processors at a time. Prints what ran and
# how long it took; ends with 1 if a test failed, and with 2 where an emulator is missing.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go}
arch=${ARCH:-arm64 ppc64le riscv64 s390x}
quick=${QUICK:-no}

# emulator ARCH: the program that runs its programs.
emulator() {
	case $1 in
	arm64) name=qemu-aarch64 ;;
	*) name=qemu-$1 ;;
	esac
	command -v "$name-static" || command -v "$name"
}

# test_ FLAGS PACKAGES...: on the processor a, by run.
test_() { GOARCH=$a "$go" test -exec "$run" -short -count=1 -timeout 30m "$@" || result=1; }

whole() {
	# Left out is what starts programs of its own, which are of this machine's kind, and
	# reads of the cache alone, a system call that qemu-user does not know.
	test_ -skip 'LockedAgainstOther|^TestCachedReads' ./ondisk ./geomlib ./geomlib/disktest ./geomlib/gate \
		./geomlib/signature ./geomlib/virstor/internal/... ./geomlib/virstor/backup
	# Of the engine a slice of every kind of crash state, and what depends on the order of bytes.
	test_ -run 'ByteOrder|BigEndian|Golden|^TestPowerLoss(UnderConcurrent|AmongRequests)|^TestConcurrent|Linearizable' ./geomlib/virstor ./geomlib/virstor/check
	test_ -skip 'Script' ./gvirstor
	test_ ./ggated-virstor/nbd
}

slice() {
	test_ ./ondisk
	test_ -run 'ByteOrder|BigEndian|^TestPowerLossAmongRequests' ./geomlib/virstor ./geomlib/virstor/check
}

export CGO_ENABLED=0
# Only with all emulators at hand.
for a in $arch; do
	if ! emulator "$a" >/dev/null; then
		echo "test-arch: no emulator for $a (Debian's package qemu-user-static)" >&2
		exit 2
	fi
done

# on ARCH: what is to run there.
on() {
	a=$1 result=0
	run=$(emulator "$a")
	begun=$(date +%s)
	echo "== $a ($run)"
	if [ "$quick" = yes ]; then
		slice
	else
		whole
	fi
	echo "== $a: $(($(date +%s) - begun)) s"
	return $result
}

failed=0
if [ "$quick" != yes ]; then
	for a in $arch; do
		on "$a" || failed=1
	done
	exit $failed
fi

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# shellcheck disable=SC2086
set -- $arch
while [ $# -gt 0 ]; do
	on "$1" > "$out/first" 2>&1 &
	first=$!
	if [ $# -gt 1 ]; then
		on "$2" > "$out/second" 2>&1 || failed=1
	fi
	wait "$first" || failed=1
	cat "$out"/*
	rm -f "$out"/*
	shift
	[ $# -eq 0 ] || shift
done
exit $failed
