#!/bin/sh
# Every fuzz target of the tree in turn, DURATION (default 10m; a number with s, m
# or h) all together. Prints the executions of each and their sum; ends with 1 if
# any found something. What one finds is left in its package's testdata/fuzz, to be
# kept; what is merely new stays in go's cache, and the next run begins with it.
set -eu
cd "$(dirname "$0")/.."
duration=${DURATION:-10m}
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

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
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

# fuzz FOLDER TARGET: one target, for its part of the time. go(1) sometimes says
# at the end that the time is over, and calls that a failure: it is none.
fuzz() {
	"$go" test -run '^$' -fuzz "^$2\$" -fuzztime "${each}s" -fuzzminimizetime 10s -timeout 0 "$1" >"$out/log" 2>&1 && return 0
	grep -q 'Failing input written' "$out/log" && return 1
	grep -q '^ *context deadline exceeded$' "$out/log"
}

sum=0
failed=0
begin=$(date +%s)
while read -r dir target; do
	crashed=
	if ! fuzz "$dir" "$target" </dev/null; then
		failed=$((failed + 1))
		crashed=' FAILED'
		cat "$out/log"
	fi
	n=$(sed -n 's/^fuzz: elapsed: .*execs: \([0-9]*\) .*/\1/p' "$out/log" | tail -n 1)
	n=${n:-0}
	sum=$((sum + n))
	printf 'fuzz: %12d %s %s%s\n' "$n" "$dir" "$target" "$crashed"
	if [ -z "$crashed" ] && ! grep -q '^fuzz: elapsed: ' "$out/log"; then # it did not run
		cat "$out/log"
		failed=$((failed + 1))
	fi
done <"$out/targets"
printf 'fuzz: %12d executions of %d targets in %d s, %d failed\n' "$sum" "$count" "$(($(date +%s) - begin))" "$failed"
[ "$failed" -eq 0 ]
