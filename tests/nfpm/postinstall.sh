#!/bin/sh
# After installation and upgrade: dpkg says "configure [OLD]", rpm how many are installed
# then.
set -eu

case ${1:-} in
configure) old=${2:-} ;;
1) old= ;;
*[!0-9]* | '') exit 0 ;; # dpkg goes back on something
*) old=$1 ;;
esac

# The user that the worker becomes, and its folders. Without them the daemon says so.
if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers gvirstor.conf || true
elif ! id gvirstor >/dev/null 2>&1 && command -v useradd >/dev/null; then
	useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin --comment "Worker of ggated-virstor" gvirstor || true
fi
if command -v systemd-tmpfiles >/dev/null; then
	systemd-tmpfiles --create gvirstor.conf || true
fi

if [ ! -d /run/systemd/system ]; then
	exit 0
fi
systemctl daemon-reload || true
# A disk does not go away because a program is renewed: the daemon goes on as the new
# program, with the disks that it serves. When it cannot, it goes on as the old one, and
# its log says why.
if [ -n "$old" ] && systemctl --quiet is-active ggated-virstor.service; then
	echo "ggated-virstor goes on as the new program; what it serves waits for a moment."
	systemctl kill --kill-who=main --signal=SIGUSR2 ggated-virstor.service || true
fi
