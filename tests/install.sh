#!/bin/sh
# install.sh install|uninstall DESTDIR PREFIX
set -eu
cd "$(dirname "$0")/.."
verb=$1 dest=$2 prefix=$3

put() { # put MODE FILE DIR [NAME]
	name=${4:-$(basename "$2")}
	if [ "$verb" = install ]; then
		mkdir -p "$dest$3"
		cp "$2" "$dest$3/$name"
		chmod "$1" "$dest$3/$name"
	else
		rm -f "$dest$3/$name"
	fi
}

put 755 bin/ggated-virstor "$prefix/sbin"
put 755 bin/gvirstor "$prefix/sbin"
# /sbin/gvirstor of the base system comes first in PATH: a name that does not.
put 755 bin/gvirstor "$prefix/sbin" uvirstor
for example in alerts.rules.yml grafana-dashboard.json 450.status-gvirstor; do
	mode=644
	[ "$example" != 450.status-gvirstor ] || mode=755
	put $mode "ggated-virstor/examples/$example" "$prefix/share/examples/gvirstor"
done
for page in man/*.[58]; do
	put 644 "$page" "$prefix/share/man/man${page##*.}"
done
put 644 ggated-virstor/ggated-virstor.conf.sample "$prefix/etc"
put 555 rc.d/ggated_virstor "$prefix/etc/rc.d"
