#!/bin/sh
# run.sh [-a amd64|arm64] [-h qemu|bhyve] [-t SECONDS] [-r REPORT] IMAGE [PACKAGE]
#
# Boots a FreeBSD VM image (BASIC-CLOUDINIT, raw or qcow2), which is not changed,
# installs PACKAGE (default: made by `make package`), runs the kyua suite inside,
# and prints the console. The exit status is that of kyua; 124 when the time limit
# (3600 s) is over. REPORT, a file, receives the report as a tar archive.
#
# The guest finds a shell script as user data on a disk labelled cidata, and the
# package on a second disk as a tar archive; it writes the report to a third. For
# kyua and atf of the guest it needs the network.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
arch=amd64 hypervisor='' limit=3600 report=''
while getopts a:h:t:r: option; do
	case $option in
	a) arch=$OPTARG ;;
	h) hypervisor=$OPTARG ;;
	t) limit=$OPTARG ;;
	r) report=$OPTARG ;;
	*) sed -n 2,4p "$0" >&2; exit 2 ;;
	esac
done
shift $((OPTIND - 1))
if [ $# -lt 1 ] || [ ! -r "$1" ]; then
	sed -n '2p' "$0" >&2
	echo "IMAGE: a FreeBSD VM image that can be read is needed" >&2
	exit 2
fi
image=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
package=${2:-}
if [ -z "$package" ]; then
	(cd "$here/../.." && make package VERSION=vm)
	package=$here/../../dist/gvirstor-vm-freebsd-$arch.tar.gz
fi
if [ -z "$hypervisor" ]; then
	hypervisor=qemu
	if [ "$(uname -s)" = FreeBSD ] && kldstat -q -m vmm; then
		hypervisor=bhyve
	fi
fi

need() {
	command -v "$1" >/dev/null 2>&1 || { echo "$1 is needed" >&2; exit 2; }
}
need qemu-img
work=$(mktemp -d)
vm=gvirstor$$
# shellcheck disable=SC2317 # the trap calls it
clean() {
	if [ "$hypervisor" = bhyve ]; then
		bhyvectl --destroy --vm="$vm" >/dev/null 2>&1 || true
	fi
	rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

# What the guest runs at its first boot.
mkdir "$work/cidata" "$work/payload"
echo "instance-id: $vm" > "$work/cidata/meta-data"
cat > "$work/cidata/user-data" <<'GUEST'
#!/bin/sh
exec > /dev/console 2>&1
rc=1
mkdir -p /root/payload && tar -C /root/payload -xf /dev/vtbd2 &&
env ASSUME_ALWAYS_YES=yes pkg install -y kyua &&
{ sh /root/payload/inside.sh /root/payload/package.tar.gz /root/report; rc=$?; }
[ -d /root/report ] && tar -C /root/report -cf - . | dd of=/dev/vtbd3 bs=64k conv=sync
echo "GVIRSTOR-VM-EXIT $rc"
sync
shutdown -p now
GUEST
cp "$package" "$work/payload/package.tar.gz"
cp "$here/inside.sh" "$work/payload/"
tar -C "$work/payload" -cf "$work/payload.raw" .
truncate -s 64m "$work/payload.raw"
truncate -s 64m "$work/report.raw"
if command -v makefs >/dev/null 2>&1; then
	makefs -t cd9660 -o rockridge -o label=cidata "$work/cidata.iso" "$work/cidata"
else
	need genisoimage
	genisoimage -quiet -volid cidata -joliet -rock -output "$work/cidata.iso" "$work/cidata"
fi

case $hypervisor in
qemu)
	qemu-img create -q -f qcow2 -b "$image" -F "$(qemu-img info "$image" | awk '/^file format:/ { print $3; exit }')" "$work/disk" 12g
	accel=tcg
	case $(uname -s)-$(uname -m)-$arch in
	Linux-x86_64-amd64 | Linux-aarch64-arm64)
		if [ -w /dev/kvm ]; then accel=kvm; fi
		;;
	esac
	case $arch in
	amd64)
		set -- qemu-system-x86_64 -machine "q35,accel=$accel"
		;;
	arm64)
		set -- qemu-system-aarch64 -machine "virt,accel=$accel" -cpu max -bios "${EFI:-/usr/share/qemu-efi-aarch64/QEMU_EFI.fd}"
		;;
	esac
	need "$1"
	drive() { echo "file=$1,format=$2,if=virtio,cache=unsafe"; }
	set -- "$@" -m 2048 -smp 2 -display none -no-reboot -serial stdio -monitor none \
		-netdev user,id=n -device virtio-net,netdev=n -device virtio-rng-pci \
		-drive "$(drive "$work/disk" qcow2)" -drive "$(drive "$work/cidata.iso" raw),readonly=on" \
		-drive "$(drive "$work/payload.raw" raw),readonly=on" -drive "$(drive "$work/report.raw" raw)"
	;;
bhyve)
	need bhyve
	qemu-img convert -O raw "$image" "$work/disk"
	truncate -s 12g "$work/disk"
	set -- bhyve -A -H -P -c 2 -m 2G -l com1,stdio -l "bootrom,${EFI:-/usr/local/share/uefi-firmware/BHYVE_UEFI.fd}" \
		-s 0,hostbridge -s 31,lpc -s 3,virtio-blk,"$work/disk" -s 4,virtio-blk,"$work/cidata.iso",ro \
		-s 5,virtio-blk,"$work/payload.raw",ro -s 6,virtio-blk,"$work/report.raw" \
		-s 7,virtio-net,slirp -s 8,virtio-rnd "$vm"
	;;
*)
	echo "-h $hypervisor: qemu or bhyve is needed" >&2
	exit 2
	;;
esac

mkfifo "$work/console"
tee "$work/log" < "$work/console" &
printer=$!
code=0
timeout "$limit" "$@" < /dev/null > "$work/console" 2>&1 || code=$?
wait "$printer"
if [ -n "$report" ]; then
	cp "$work/report.raw" "$report"
fi
if [ "$code" = 124 ]; then
	echo "the time limit of $limit seconds is over" >&2
	exit 124
fi
rc=$(tr -d '\r' < "$work/log" | sed -n 's/.*GVIRSTOR-VM-EXIT \([0-9][0-9]*\).*/\1/p' | tail -1)
if [ -z "$rc" ]; then
	echo "the guest ended without a result (hypervisor: $code)" >&2
	exit 1
fi
exit "$rc"
