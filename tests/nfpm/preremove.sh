#!/bin/sh
# Before removal, and before an upgrade, which is not for us to prepare: dpkg says "remove"
# then, rpm how many stay installed.
set -eu

case ${1:-} in
remove | 0) ;;
*) exit 0 ;;
esac
if [ ! -d /run/systemd/system ] || ! command -v systemctl >/dev/null; then
	exit 0
fi
if systemctl --quiet is-active ggated-virstor.service && gvirstor clients --json | grep -q '"volume"'; then
	echo "NBD clients are connected (see gvirstor clients). Have them leave, or end the service (systemctl stop ggated-virstor.socket ggated-virstor.service), and remove the package then." >&2
	exit 1
fi
systemctl disable --now ggated-virstor.socket ggated-virstor.service
