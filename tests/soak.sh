#!/bin/sh
# Soak for DURATION (default 10m; a number with s, m or h) from SEED (default the
# time): failing I/O (every request of every verb from 10m on, a sample below), then
# crash states of the engine for three quarters of the time, then clients of a slow
# and full volume that die, then the real daemon killed, stopped and let down, then the states
# of a lease that three hosts want, from 30m on all of them. Prints what was done; ends with
# 1, and the commands that replay it, if anything was lost.
set -eu
cd "$(dirname "$0")/.."
duration=${DURATION:-10m}
seed=${SEED:-$(date +%s)}
go=${GO:-go}

number=${duration%?}
case $number in
'' | *[!0-9]*) number=0 ;;
esac
case $duration in
*s) total=$number ;;
*m) total=$((number * 60)) ;;
*h) total=$((number * 3600)) ;;
*) total=0 ;;
esac
if [ "$total" -lt 4 ]; then
	echo "soak: DURATION=$duration: a number of at least 4 seconds is needed, such as 90s, 10m or 1h" >&2
	exit 1
fi

out=$(mktemp -d)
trap 'rm -rf "$out" ${files:+"$files"}' EXIT
trap 'exit 1' HUP INT TERM
failed=0

# part NAME PACKAGE ARGUMENT...: run tests, whose files are below $scratch, and keep what
# they print.
scratch=
part() {
	name=$1
	shift
	if ! TMPDIR=${scratch:-${TMPDIR:-/tmp}} "$go" test -timeout 0 -count=1 -v "$@" >"$out/$name" 2>&1; then
		failed=1
		cat "$out/$name"
	fi
}

engine=$((total * 3 / 4))
every=false
[ "$total" -lt 600 ] || every=true
part faults ./geomlib/virstor -run '^TestEvery(FailingRequestLosesNothingAcknowledged|VerbBearsEveryFailingRequest)$' -soak.faults="$every"
# Disks are in memory; the files of offline verbs are flushed, and may as well be.
files=
if [ -d /dev/shm ] && [ -w /dev/shm ]; then
	files=$(mktemp -d /dev/shm/soak.XXXXXX)
fi
scratch=$files
part engine ./geomlib/virstor -run '^TestSoak$' -soak.duration="${engine}s" -soak.seed="$seed"
scratch=
clients=$((total / 12))
part clients ./ggated-virstor/nbd -run '^TestClientsSoak$' -clients.duration="${clients}s" -clients.seed="$seed"
part daemon ./tests/blackbox -run '^TestDeathSoak$' -death.duration="$((total - engine - clients))s" -death.seed="$seed"
three=
[ "$total" -lt 1800 ] || three=-lease.three # a quarter of an hour and a gigabyte
part lease ./geomlib/virstor/internal/lease -run '^TestNoTwoOfThreeOwnersWithinASmallBound$' -args $three

echo "soak: $duration from seed $seed"
sed -n 's/.*: three hosts, \(.*\)$/soak: lease of three hosts, \1/p' "$out/lease"
sed -n 's/.*: \([0-9]* faults injected\( in verbs\)*\)$/soak: failing I\/O: \1/p' "$out/faults"
grep -h '^soak:' "$out/engine" "$out/clients" "$out/daemon" || failed=1
grep -h 'replay: ' "$out/engine" "$out/clients" "$out/daemon" || true
if [ "$failed" -ne 0 ]; then
	echo "soak: FAILED"
	exit 1
fi
