#!/bin/sh
# Run all tests. As root it installs the clients that are missing, by apt-get
# or pkg; otherwise it says what is skipped for want of them.
set -eu
cd "$(dirname "$0")/.."

missing() {
	for tool in nbdinfo nbdcopy nbdfuse nbdkit qemu-img qemu-io qemu-nbd fio certtool mkfs.ext4 e2fsck debugfs fsfreeze fusermount3 chromium zsh fish tcsh rpm systemctl \
		ceph-mon ceph-osd ceph ceph-authtool monmaptool rbd qemu-s390x-static; do
		command -v "$tool" >/dev/null 2>&1 || printf '%s ' "$tool"
	done
}

install_tools() {
	if command -v apt-get >/dev/null 2>&1; then
		export DEBIAN_FRONTEND=noninteractive
		apt-get update -q
		apt-get install -q -y --no-install-recommends libnbd-bin nbdfuse nbdkit qemu-utils fio \
			e2fsprogs util-linux fuse3 gnutls-bin xfsprogs chromium zsh fish tcsh rpm systemd \
			ceph-common ceph-mon ceph-osd qemu-block-extra qemu-user-static
	elif command -v pkg >/dev/null 2>&1; then
		pkg install -y libnbd nbdkit qemu-tools fio e2fsprogs gnutls
	fi
}

if [ -n "$(missing)" ] && [ "$(id -u)" -eq 0 ]; then
	echo "installing: $(missing)"
	install_tools || echo "could not install everything"
fi
if [ -n "$(missing)" ]; then
	echo "not installed, tests that need them are skipped: $(missing)"
fi
# The limit is of one package, and for machines that are slow or busy. The longest begin
# first, and one more at a time than there are processors: the black box waits for its clients
# most of the time.
packages=$(($(getconf _NPROCESSORS_ONLN) + 1))
# shellcheck disable=SC2086
exec "${GO:-go}" test -p "$packages" -timeout 20m ${TESTFLAGS:-} ./tests/blackbox ./geomlib/virstor ./geomlib/virstor/internal/lease ./...
