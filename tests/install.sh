#!/bin/sh
# install.sh install|uninstall|list DESTDIR PREFIX
#
# Puts the built programs, manuals, scripts and samples where the system keeps
# such, takes them away again, or lists them as a port's pkg-plist does. OS names
# the system (FreeBSD or Linux; that of this machine by default), BIN the folder
# of the programs. Samples of files that an administrator changes end in .sample
# and are copied to their place when nothing is there.
set -eu
cd "$(dirname "$0")/.."
verb=$1 dest=$2 prefix=$3
os=${OS:-$(uname -s)} bin=${BIN:-bin}

# put MODE FILE DIR [NAME], DIR below the prefix
put() {
	name=${4:-$(basename "$2")}
	to=$dest$prefix/$3/$name
	case $verb in
	install)
		mkdir -p "${to%/*}"
		sed_if_text "$2" > "$to.new"
		chmod "$1" "$to.new"
		mv -f "$to.new" "$to"
		;;
	uninstall)
		rm -f "$to"
		tidy "$3"
		;;
	list)
		echo "$3/$name"
		;;
	esac
}

# Texts name the prefix that they are made for.
sed_if_text() {
	case $1 in
	"$bin"/*) cat "$1" ;;
	*) sed "s,/usr/local,$prefix,g" "$1" ;;
	esac
}

# Remove the folders that are ours, or empty, up to the prefix.
tidy() {
	dir=$1
	while [ "$dir" != . ] && rmdir "$dest$prefix/$dir" 2>/dev/null; do
		dir=$(dirname "$dir")
	done
}

# sample FILE DIR NAME: as @sample of pkg-plist(5).
sample() {
	at=$dest$prefix/$2/$3
	case $verb in
	install)
		put 644 "$1" "$2" "$3.sample"
		[ -e "$at" ] || cp "$at.sample" "$at"
		;;
	uninstall)
		if cmp -s "$at" "$at.sample"; then
			rm -f "$at"
		fi
		put 644 "$1" "$2" "$3.sample"
		;;
	list)
		echo "@sample $2/$3.sample"
		;;
	esac
}

case $os in
FreeBSD) man=share/man examples=share/examples/gvirstor suite=tests/gvirstor ;;
*) man=share/man examples=share/doc/gvirstor/examples suite=lib/gvirstor/tests ;;
esac

put 755 "$bin/ggated-virstor" sbin
put 755 "$bin/gvirstor" sbin
# /sbin/gvirstor of the base system comes first in PATH: a name that does not.
put 755 "$bin/gvirstor" sbin uvirstor
for page in man/*.[0-9]; do
	put 644 "$page" "$man/man${page##*.}"
done
sample ggated-virstor/ggated-virstor.conf.sample etc ggated-virstor.conf
if [ "$os" = FreeBSD ]; then
	put 555 rc.d/ggated_virstor etc/rc.d
	if [ -e ggated-virstor/examples/450.status-gvirstor ]; then
		put 555 ggated-virstor/examples/450.status-gvirstor etc/periodic/daily
	fi
fi
if [ "$os" != FreeBSD ]; then
	put 644 ggated-virstor/systemd/gvirstor.sysusers lib/sysusers.d gvirstor.conf
	put 644 ggated-virstor/systemd/gvirstor.tmpfiles lib/tmpfiles.d gvirstor.conf
	put 644 ggated-virstor/systemd/ggated-virstor.service lib/systemd/system
	put 644 ggated-virstor/systemd/ggated-virstor.socket lib/systemd/system
fi
for f in ggated-virstor/examples/*; do
	put 644 "$f" "$examples"
done
for f in Kyuafile nbd_test; do
	put "$([ "$f" = Kyuafile ] && echo 644 || echo 755)" "tests/$f" "$suite"
done
for f in tests/freebsd/*; do
	put "$([ "${f##*/}" = Kyuafile ] && echo 644 || echo 755)" "$f" "$suite/freebsd"
done

# On the machine itself the worker's user is made now; where this is unpacked or
# staged, the rc script or systemd-sysusers(8) makes it.
if [ "$verb" = install ] && [ -z "$dest" ] && [ "$(id -u)" = 0 ] && ! id gvirstor >/dev/null 2>&1; then
	case $os in
	FreeBSD) pw useradd gvirstor -c "Worker of ggated-virstor" -d /nonexistent -s /usr/sbin/nologin ;;
	*) useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin --comment "Worker of ggated-virstor" gvirstor ;;
	esac || echo "make a user gvirstor: without it the worker runs as nobody" >&2
fi
