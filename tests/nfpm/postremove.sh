#!/bin/sh
# After removal. The configuration stays until it is purged; the metadata of volumes in
# backup (/var/db/gvirstor), what this host has served (/var/db/ggated-virstor) and the
# user gvirstor stay for good: they are the administrator's.
set -eu

if [ -d /run/systemd/system ] && command -v systemctl >/dev/null; then
	systemctl daemon-reload || true
fi
