#!/bin/sh
# install.sh install|uninstall|list DESTDIR PREFIX
#
# Puts the built programs, manuals, scripts and samples where the system keeps
# such, takes them away again, or lists them as a port's pkg-plist does. OS names
# the system (FreeBSD or Linux; that of this machine by default), BIN the folder
# of the programs and of what shells complete by, SYSCONFDIR that of configurations
# (PREFIX/etc by default), ZSH where zsh looks for completions, below the prefix.
# Samples of files that an administrator changes end in .sample and are copied to
# their place when nothing is there.
set -eu
cd "$(dirname "$0")/.."
verb=$1 dest=$2 prefix=$3
os=${OS:-$(uname -s)} bin=${BIN:-bin} sysconfdir=${SYSCONFDIR:-$prefix/etc}
zsh=${ZSH:-share/zsh/site-functions}

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

# also TARGET DIR NAME: a link to what has another name in the same folder.
also() {
	to=$dest$prefix/$2/$3
	case $verb in
	install)
		mkdir -p "${to%/*}"
		ln -sf "$1" "$to"
		;;
	uninstall)
		rm -f "$to"
		tidy "$2"
		;;
	list)
		echo "$2/$3"
		;;
	esac
}

# Texts name the prefix that they are made for.
sed_if_text() {
	case $1 in
	"$bin"/*) cat "$1" ;;
	*) sed "s,/usr/local/etc,$sysconfdir,g; s,/usr/local,$prefix,g" "$1" ;;
	esac
}

# Remove the folders that are ours, or empty, up to the prefix.
tidy() {
	dir=$1
	while [ "$dir" != . ] && rmdir "$dest$prefix/$dir" 2>/dev/null; do
		dir=$(dirname "$dir")
	done
}

# sample FILE NAME: in the folder of configurations, as @sample of pkg-plist(5).
sample() {
	at=$dest$sysconfdir/$2
	case $verb in
	install)
		mkdir -p "$dest$sysconfdir"
		sed_if_text "$1" > "$at.sample"
		chmod 644 "$at.sample"
		[ -e "$at" ] || cp "$at.sample" "$at"
		;;
	uninstall)
		if cmp -s "$at" "$at.sample"; then
			rm -f "$at"
		fi
		rm -f "$at.sample"
		rmdir "$dest$sysconfdir" 2>/dev/null || true
		;;
	list)
		echo "@sample etc/$2.sample"
		;;
	esac
}

case $os in
FreeBSD) examples=share/examples/gvirstor ;;
*) examples=share/doc/gvirstor/examples ;;
esac
completions=share/bash-completion/completions fish=share/fish/vendor_completions.d

put 755 "$bin/ggated-virstor" sbin
put 755 "$bin/gvirstor" sbin
for page in man/*.[0-9]; do
	put 644 "$page" "share/man/man${page##*.}"
done
sample ggated-virstor/ggated-virstor.conf.sample ggated-virstor.conf
put 644 "$bin/completion.bash" "$completions" gvirstor
put 644 "$bin/completion.zsh" "$zsh" _gvirstor
put 644 "$bin/completion.fish" "$fish" gvirstor.fish
for f in alerts.rules.yml grafana-dashboard.json; do
	put 644 "ggated-virstor/examples/$f" "$examples"
done
if [ "$os" = FreeBSD ]; then
	# /sbin/gvirstor of the base system comes first in PATH: a name that does not.
	also gvirstor sbin uvirstor
	also gvirstor "$completions" uvirstor
	also gvirstor.fish "$fish" uvirstor.fish
	put 555 rc.d/ggated_virstor etc/rc.d
	put 555 ggated-virstor/examples/450.status-gvirstor etc/periodic/daily
	put 555 ggated-virstor/examples/460.snapshot-gvirstor etc/periodic/daily
	for f in 450.status-gvirstor 460.snapshot-gvirstor devd.conf newsyslog.conf syslog.conf; do
		put 644 "ggated-virstor/examples/$f" "$examples"
	done
	suite=tests/gvirstor
	put 644 tests/Kyuafile "$suite"
	for f in "$bin/nbdio" tests/nbd_test tests/summary.sh; do
		put 755 "$f" "$suite"
	done
	for f in tests/freebsd/*; do
		put "$([ "${f##*/}" = Kyuafile ] && echo 644 || echo 755)" "$f" "$suite/freebsd"
	done
else
	for f in gvirstor-snapshot@.service gvirstor-snapshot@.timer; do
		put 644 "ggated-virstor/examples/$f" "$examples"
	done
	put 644 ggated-virstor/systemd/gvirstor.sysusers lib/sysusers.d gvirstor.conf
	put 644 ggated-virstor/systemd/gvirstor.tmpfiles lib/tmpfiles.d gvirstor.conf
	put 644 ggated-virstor/systemd/ggated-virstor.service lib/systemd/system
	put 644 ggated-virstor/systemd/ggated-virstor.socket lib/systemd/system
fi

# On the machine itself the worker's user is made now; where this is unpacked or
# staged, the rc script or systemd-sysusers(8) makes it.
if [ "$verb" = install ] && [ -z "$dest" ] && [ "$(id -u)" = 0 ] && ! id gvirstor >/dev/null 2>&1; then
	case $os in
	FreeBSD) pw useradd gvirstor -c "Worker of ggated-virstor" -d /nonexistent -s /usr/sbin/nologin ;;
	*) useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin --comment "Worker of ggated-virstor" gvirstor ;;
	esac || echo "make a user gvirstor: without it the worker runs as nobody" >&2
fi
