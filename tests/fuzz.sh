#!/bin/sh
# Every fuzz target of the tree in turn, each for its share of DURATION (a number with
# s, m or h; 10m when neither is given, 5m beside EXECS). With EXECS=NUMBER the targets
# that are fast then make up that number of executions, whatever time it takes. Prints
# the executions of each target, their sum and the time; ends with 1 if any found
# something. What one finds is left in its package's testdata/fuzz, to be kept; what is
# merely new is kept in go's cache, or below the folder CORPUS, and the next run begins
# with it. JOBS is the number of processors to use.
set -eu
cd "$(dirname "$0")/.."
execs=${EXECS:-0}
duration=${DURATION:-10m}
go=${GO:-go}
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}

case $execs in
*[!0-9]*)
	echo "fuzz: EXECS=$execs: a number of executions is needed, such as 100000000" >&2
	exit 1
	;;
esac
if [ "$execs" -gt 0 ] && [ -z "${DURATION:-}" ]; then
	duration=5m
fi
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

out=$(mktemp -d)
files=$out/files # of the targets, in memory where that can be, since they are flushed
if [ -d /dev/shm ] && [ -w /dev/shm ]; then
	files=$(mktemp -d /dev/shm/fuzz.XXXXXX)
fi
mkdir -p "$files"
trap 'rm -rf "$out" "$files"' EXIT
trap 'exit 1' HUP INT TERM

# Folder and name of each target.
find . -name '*_test.go' -exec grep -H '^func Fuzz' {} + |
	sed 's/^\(.*\)\/[^/]*:func \(Fuzz[A-Za-z0-9_]*\)(.*/\1 \2/' | sort >"$out/targets"
count=$(wc -l <"$out/targets" | tr -d ' ')
each=$((total / count))
if [ "$each" -lt 1 ]; then
	echo "fuzz: DURATION=$duration: $count targets need at least a second each, such as ${count}s, 10m or 1h" >&2
	exit 1
fi
corpus=${CORPUS:-$("$go" env GOCACHE)/fuzz}
mkdir -p "$corpus"
corpus=$(cd "$corpus" && pwd)

# binary FOLDER: where its tests are built.
binary() {
	printf '%s/%s.test' "$out" "$(printf '%s' "$1" | tr '/' '_')"
}

# build FOLDER: its tests, with counters of coverage in the package and in what it
# imports of this module. go test -fuzz puts them into all of the standard library as
# well, and each execution then spends most of its time on adding them up. For the same
# reason the engine has none below the daemon, whose targets have other disks.
build() {
	counted=.
	case $1 in
	./ggated-virstor/*) counted=/ggated-virstor/ ;;
	esac
	flags=$("$go" list -deps -f '{{with .Module}}{{if .Main}}-gcflags={{$.ImportPath}}=-d=libfuzzer{{end}}{{end}}' "$1" | grep "$counted")
	# shellcheck disable=SC2086 # no import path has a space
	"$go" test -c $flags -o "$(binary "$1")" "$1"
	"$go" list "$1" >"$(binary "$1").path"
}

# fuzz FOLDER TARGET AMOUNT: one target, for a time (10s) or a number of executions
# (1000x). A worker needs one processor, since a target runs in one goroutine, mostly.
# Minimizing stops after so many executions: it would take all the time of a target
# whose coverage differs from run to run. The library sometimes says at the end that
# the time is over, and calls that a failure: it is none.
fuzz() {
	cache=$corpus/$(cat "$(binary "$1").path")
	(cd "$1" && TMPDIR=$files GOMAXPROCS=1 "$(binary "$1")" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "$3" -test.parallel "$jobs" \
		-test.fuzzminimizetime 200x -test.fuzzcachedir "$cache") >"$out/log" 2>&1 && return 0
	grep -q 'Failing input written' "$out/log" && return 1
	grep -q '^ *context deadline exceeded$' "$out/log"
}

# turn FOLDER TARGET AMOUNT: fuzz, and keep and say what came of it.
turn() {
	crashed=
	start=$(date +%s)
	fuzz "$@" </dev/null || crashed=' FAILED'
	took=$(($(date +%s) - start))
	n=$(sed -n -e 's/^fuzz: elapsed: .*execs: \([0-9]*\) .*/\1/p' -e 's/^fuzz: elapsed: .* coverage: \([0-9]*\)\/.*/\1/p' "$out/log" | tail -n 1)
	if [ -n "$crashed" ] || [ -z "$n" ]; then # the latter did not run
		cat "$out/log"
		echo "$1 $2" >>"$out/failed"
	fi
	echo "$1 $2 ${n:-0} $took" >>"$out/turns"
	printf 'fuzz: %12d in %4d s %s %s%s\n' "${n:-0}" "$took" "$1" "$2" "$crashed"
}

# made: the executions until now.
made() {
	awk '{ n += $3 } END { printf "%d\n", n }' "$out/turns"
}

# shares NUMBER: folder, target and executions for each target that is to make up a
# part of NUMBER. They are those that are at least half as fast as the fastest, and
# each is given about the same time.
shares() {
	awk -v rest="$1" '
		{ n[$1 " " $2] += $3; s[$1 " " $2] += $4 }
		END {
			for (t in n) {
				rate[t] = n[t] / (s[t] > 0 ? s[t] : 1)
				if (rate[t] > best) best = rate[t]
			}
			for (t in n) if (rate[t] * 2 >= best) sum += rate[t]
			if (sum > 0) for (t in n) if (rate[t] * 2 >= best) printf "%s %d\n", t, rest * rate[t] / sum + 1
		}' "$out/turns" | sort
}

cut -d ' ' -f 1 "$out/targets" | sort -u >"$out/folders"
while read -r dir; do
	build "$dir"
done <"$out/folders"

: >"$out/failed"
: >"$out/turns"
begin=$(date +%s)
while read -r dir target; do
	turn "$dir" "$target" "${each}s"
done <"$out/targets"
while [ "$(made)" -lt "$execs" ] && [ ! -s "$out/failed" ]; do
	shares $((execs - $(made))) >"$out/shares"
	if [ ! -s "$out/shares" ]; then
		break
	fi
	echo "fuzz: $(made) of $execs executions: the rest, by the targets that are fast"
	while read -r dir target n; do
		turn "$dir" "$target" "${n}x"
	done <"$out/shares"
done
took=$(($(date +%s) - begin))

if [ "$(wc -l <"$out/turns")" -gt "$count" ]; then
	echo 'fuzz: together'
	awk '{ n[$1 " " $2] += $3; s[$1 " " $2] += $4 } END { for (t in n) printf "fuzz: %12d in %4d s %s\n", n[t], s[t], t }' "$out/turns" | sort -k 6
fi
failed=$(wc -l <"$out/failed" | tr -d ' ')
printf 'fuzz: %12d executions of %d targets in %d s, %d failed; what is new is in %s\n' "$(made)" "$count" "$took" "$failed" "$corpus"
[ "$failed" -eq 0 ] && [ "$(made)" -ge "$execs" ]
