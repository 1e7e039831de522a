#!/bin/sh
# gate.sh [-b BIN] [-d DISK] [-l MS] [-n PAIRS] [-o JSON] [-p PEERS] [-q DEPTH] [-s SECONDS] [-z SIZE]
#
# On FreeBSD, as root: measures a volume published through geom_gate(4) beside
# ggatel(8) and the kernel class geom_virstor, on one disk, the servers in turn
# (A B A B ...). One pair of runs warms up, PAIRS (5) count. Prints medians, the
# median of the ratios pair by pair, the smallest and the largest, and writes each
# run to the file JSON.
#
# DISK loses what it holds; without it a disk of SIZE MiB (512) is made in memory.
# MS puts gnop(8) above it, which delays every request by so many milliseconds.
# BIN is the folder of the programs (bin), PEERS "ggatel kernel" or one of them,
# DEPTH the number of requests under way in the jobs with many (16).
#
# dd(1) reads and writes in sequence, and with many of it in as many places; where
# fio(1) is installed it does the same at random.
set -eu
export LC_ALL=C

bin=bin disk='' delay=0 pairs=5 json=tests/bench/out/gate.json peers='ggatel kernel' depth=16 seconds=3 size=512
usage() {
	sed -n 2p "$0" >&2
	exit 2
}
while getopts b:d:l:n:o:p:q:s:z: option; do
	case $option in
	b) bin=$OPTARG ;;
	d) disk=$OPTARG ;;
	l) delay=$OPTARG ;;
	n) pairs=$OPTARG ;;
	o) json=$OPTARG ;;
	p) peers=$OPTARG ;;
	q) depth=$OPTARG ;;
	s) seconds=$OPTARG ;;
	z) size=$OPTARG ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
[ $# -eq 0 ] || usage
for number in "$delay" "$pairs" "$depth" "$seconds" "$size"; do
	case $number in
	'' | *[!0-9]*)
		echo "gate.sh: '$number' is not a number" >&2
		exit 2
		;;
	esac
done
if [ "$pairs" -lt 1 ] || [ "$depth" -lt 1 ] || [ "$seconds" -lt 1 ] || [ "$size" -lt 128 ]; then
	echo "gate.sh: PAIRS, DEPTH and SECONDS are at least 1, SIZE 128" >&2
	exit 2
fi
for peer in $peers; do
	case $peer in
	ggatel | kernel) ;;
	*)
		echo "gate.sh: there is no peer '$peer'" >&2
		exit 2
		;;
	esac
done
if [ "$(uname -s)" != FreeBSD ]; then
	echo "gate.sh: geom_gate(4) is FreeBSD's" >&2
	exit 2
fi
case $bin in
/*) ;;
*) bin=$PWD/$bin ;;
esac
for program in "$bin/ggated-virstor" "$bin/gvirstor"; do
	[ -x "$program" ] || { echo "gate.sh: $program is needed: make build" >&2; exit 2; }
done

work=$(mktemp -d)
results=$work/results
: > "$results"
running='' memory='' nop=''
# shellcheck disable=SC2317 # the trap calls it
clean() {
	stop 2>/dev/null || true
	/sbin/geom virstor stop bench 2>/dev/null || true
	[ -z "$nop" ] || gnop destroy -f "$nop" || true
	[ -z "$memory" ] || mdconfig -d -u "$memory" || true
	rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

die() {
	echo "gate.sh: $*" >&2
	exit 1
}

# until_true WHAT COMMAND ...: for at most half a minute
until_true() {
	what=$1 tries=150
	shift
	until "$@" >/dev/null 2>&1; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || die "not in time: $what: $(tail -n 3 "$work/log" 2>/dev/null)"
		sleep 0.2
	done
}

control() {
	verb=$1
	shift
	"$bin/gvirstor" --control "$work/control" "$verb" "$@"
}

serves() {
	kill -0 "$daemon" && control status -s bench
}

# start SERVER: dev is its device then, and base the byte where its data begins.
start() {
	base=0
	case $1 in
	ours)
		"$bin/ggated-virstor" --config /dev/null --control "$work/control" --run-dir "$work/run" --backup-dir "" --state-dir "" "$disk" \
			> "$work/log" 2>&1 &
		daemon=$!
		running=ours
		until_true "the daemon serves" serves
		dev=/dev/$(control status -s bench | awk 'NR == 1 { print $1 }')
		;;
	ggatel)
		unit=70
		while [ -e "/dev/ggate$unit" ]; do
			unit=$((unit + 1))
		done
		ggatel create -u "$unit" "/dev/$disk"
		running=ggatel dev=/dev/ggate$unit
		# Neither the map at the beginning nor the metadata at the end.
		base=$((16 << 20))
		;;
	kernel)
		running=kernel dev=/dev/virstor/bench
		;;
	esac
	until_true "$dev appears" test -c "$dev"
}

stop() {
	was=$running running=''
	case $was in
	ours)
		control stop bench
		kill "$daemon"
		wait "$daemon" || true
		;;
	ggatel) ggatel destroy -u "$unit" ;;
	kernel) /sbin/geom virstor stop bench ;;
	esac
}

# seconds_of COMMAND: how long the shell needs for it
seconds_of() {
	/usr/bin/env time -p sh -c "$1" 2> "$work/time" >/dev/null || die "$1: $(cat "$work/time")"
	awk '$1 == "real" { print ($2 < 0.01) ? 0.01 : $2 }' "$work/time"
}

# dd_command read|write BLOCK COUNT JOBS: so many at once, each at its place
dd_command() {
	job=0 command='all=; '
	while [ "$job" -lt "$4" ]; do
		at=$(((base + job * (space / $4)) / $2))
		case $1 in
		read) command="${command}dd if=$dev of=/dev/null bs=$2 count=$3 skip=$at 2>/dev/null & all=\"\$all \$!\"; " ;;
		write) command="${command}dd if=/dev/zero of=$dev bs=$2 count=$3 seek=$at conv=notrunc 2>/dev/null & all=\"\$all \$!\"; " ;;
		esac
		job=$((job + 1))
	done
	echo "${command}for p in \$all; do wait \$p || exit 1; done"
}

# dd_rate read|write BLOCK JOBS: bytes a second. A short run tells how much is
# done in the time of a run.
dd_rate() {
	most=$((space / $3 / $2))
	count=$(((1 << 20) / $2 / $3))
	[ "$count" -ge 8 ] || count=8
	[ "$count" -le "$most" ] || count=$most
	took=$(seconds_of "$(dd_command "$1" "$2" "$count" "$3")")
	count=$(awk -v n="$count" -v t="$took" -v s="$seconds" -v most="$most" \
		'BEGIN { n = int(n * s / t); print (n < 8) ? 8 : (n > most) ? most : n }')
	took=$(seconds_of "$(dd_command "$1" "$2" "$count" "$3")")
	awk -v n="$count" -v b="$2" -v j="$3" -v t="$took" 'BEGIN { print n * b * j / t }'
}

# fio_rate RW DEPTH: bytes a second of 4 KiB at random places
fio_rate() {
	fio --name=gate --filename="$dev" --rw="$1" --bs=4k --iodepth="$2" --ioengine=posixaio --direct=1 \
		--time_based --runtime="$seconds" --offset="$base" --size="$space" \
		--output-format=terse --terse-version=3 > "$work/fio" || die "fio: $(cat "$work/fio")"
	awk -F ';' '{ print ($8 + $49) * 4096 }' "$work/fio"
}

jobs() {
	echo "dd-read-4k-QD1 dd-write-4k-QD1 dd-read-4k-QD$depth dd-write-4k-QD$depth dd-read-1m-QD1 dd-write-1m-QD1"
	if command -v fio >/dev/null 2>&1; then
		echo "fio-randread-4k-QD1 fio-randwrite-4k-QD1 fio-randread-4k-QD$depth fio-randwrite-4k-QD$depth"
	fi
}

# rate JOB
rate() {
	many=${1##*-QD}
	case $1 in
	dd-read-4k-*) dd_rate read 4096 "$many" ;;
	dd-write-4k-*) dd_rate write 4096 "$many" ;;
	dd-read-1m-*) dd_rate read 1048576 "$many" ;;
	dd-write-1m-*) dd_rate write 1048576 "$many" ;;
	fio-randread-*) fio_rate randread "$many" ;;
	fio-randwrite-*) fio_rate randwrite "$many" ;;
	esac
}

# measure PEER SERVER PAIR
measure() {
	start "$2"
	for j in $(jobs); do
		r=$(rate "$j")
		if [ "$3" -gt 0 ]; then
			echo "$1 $j $2 $3 $r" >> "$results"
		fi
	done
	stop
}

# report PEER
report() {
	for j in $(jobs); do
		awk -v peer="$1" -v job="$j" '
			function median(v, n,   i, k, x) {
				for (i = 2; i <= n; i++)
					for (k = i; k > 1 && v[k] < v[k - 1]; k--) { x = v[k]; v[k] = v[k - 1]; v[k - 1] = x }
				return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
			}
			$1 == peer && $2 == job { rate[$3, $4] = $5; if ($4 > n) n = $4 }
			END {
				for (i = 1; i <= n; i++) {
					a[i] = rate["ours", i]; b[i] = rate[peer, i]; r[i] = a[i] / b[i]
				}
				ma = median(a, n); mb = median(b, n); mr = median(r, n)
				unit = "MiB/s"; by = 1048576
				if (job ~ /-4k-/) { unit = "op/s"; by = 4096 }
				printf "%-24s %-7s ours %9.0f  theirs %9.0f %-6s ratio %.2f (%.2f-%.2f)\n", job, peer, ma / by, mb / by, unit, mr, r[1], r[n]
			}' "$results"
	done
}

write_json() {
	case $json in
	*/*) mkdir -p "${json%/*}" ;;
	esac
	awk -v delay="$delay" '
		BEGIN { printf "{\"delay_ms\": %d, \"results\": [", delay }
		{ printf "%s\n  {\"peer\": \"%s\", \"job\": \"%s\", \"server\": \"%s\", \"pair\": %d, \"bytes_per_second\": %.0f}", (NR > 1) ? "," : "", $1, $2, $3, $4, $5 }
		END { print "\n]}" }' "$results" > "$json"
}

kldload -n geom_gate || die "geom_gate cannot be loaded"
if [ -z "$disk" ]; then
	memory=$(mdconfig -a -t swap -s "${size}m")
	disk=$memory
fi
disk=${disk#/dev/}
if [ "$delay" -gt 0 ]; then
	gnop create -d "$delay" -q 100 -x 100 "$disk"
	nop=$disk.nop disk=$disk.nop
fi
bytes=$(diskinfo "$disk" | awk '{ print $3 }')
# Two chunks of 4 MiB are reserved for the map at least; all others are filled.
space=$(((bytes - (40 << 20)) / (4 << 20) * (4 << 20)))
[ "$space" -ge $((64 << 20)) ] || die "$disk is too small: 128 MiB are needed"
"$bin/gvirstor" --control "$work/control" label -s "$space" -m 4m bench "$disk" > "$work/label" 2>&1 || die "$(cat "$work/label")"
start ours
dd if=/dev/zero of="$dev" bs=1048576 count=$((space >> 20)) 2> "$work/fill" || die "$(cat "$work/fill")"
stop
for peer in $peers; do
	if [ "$peer" = kernel ] && ! kldload -n geom_virstor 2>/dev/null; then
		echo "kernel: geom_virstor cannot be loaded; left out" >&2
		continue
	fi
	pair=0
	while [ "$pair" -le "$pairs" ]; do
		measure "$peer" ours "$pair"
		measure "$peer" "$peer" "$pair"
		pair=$((pair + 1))
	done
	report "$peer"
done
write_json
