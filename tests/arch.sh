#!/bin/sh
# The format, the engine with a slice of its crash states, the utility and the NBD server
# on other processors, run by qemu-user: ARCH lists them (default: all). s390x has the
# other byte order. Prints what ran and how long it took; ends with 1 if a test failed,
# and with 2 where an emulator is missing.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go}
arch=${ARCH:-arm64 ppc64le riscv64 s390x}

# emulator ARCH: the program that runs its programs.
emulator() {
	case $1 in
	arm64) name=qemu-aarch64 ;;
	*) name=qemu-$1 ;;
	esac
	command -v "$name-static" || command -v "$name"
}

export CGO_ENABLED=0
failed=0
for a in $arch; do
	if ! run=$(emulator "$a"); then
		echo "test-arch: no emulator for $a (Debian's package qemu-user-static)" >&2
		exit 2
	fi
	begun=$(date +%s)
	echo "== $a ($run)"
	# test FLAGS PACKAGES...
	test_() { GOARCH=$a "$go" test -exec "$run" -short -count=1 -timeout 30m "$@" || failed=1; }
	# Left out is what starts programs of its own, which are of this machine's kind, and
	# reads of the cache alone, a system call that qemu-user does not know.
	test_ -skip 'LockedAgainstOther|^TestCachedReads' ./ondisk ./geomlib ./geomlib/disktest ./geomlib/gate \
		./geomlib/signature ./geomlib/virstor/internal/... ./geomlib/virstor/backup
	# Of the engine a slice of every kind of crash state, and what depends on the order of bytes.
	test_ -run 'ByteOrder|BigEndian|Golden|^TestPowerLoss(UnderConcurrent|AmongRequests)|^TestConcurrent|Linearizable' ./geomlib/virstor ./geomlib/virstor/check
	test_ -skip 'Script' ./gvirstor
	test_ ./ggated-virstor/nbd
	echo "== $a: $(($(date +%s) - begun)) s"
done
exit $failed
