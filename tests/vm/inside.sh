#!/bin/sh
# inside.sh PACKAGE REPORT: on FreeBSD, as root: unpack PACKAGE at the root, run
# the installed suite, and leave its report in the folder REPORT, its sum last. The
# exit status is that of kyua, or 1 when a case is skipped that need not be.
set -eu
package=$1 report=$2
tar -C / -xzf "$package"
kldload -n geom_gate
mkdir -p "$report"
cd "${SUITE:-/usr/local/tests/gvirstor}"
case $report in
/*) ;;
*) report=$OLDPWD/$report ;;
esac
# summary FILE SECONDS: how many cases ended how, and why those that did not pass.
# A line of kyua is "program:case  ->  result[: reason]  [1.234s]".
summary()
{
	awk -v seconds="$2" -v where="$(uname -srm)" '
		/  ->  / {
			sub(/  \[[^]]*\]$/, "")
			name = result = $0
			sub(/  ->  .*/, "", name)
			sub(/.*  ->  /, "", result)
			reason = result
			sub(/:.*/, "", result)
			sub(/^[^:]*:? */, "", reason)
			cases++
			count[result]++
			if (result != "passed") {
				why[++others] = "  " result ": " name (reason == "" ? "" : ": " reason)
			}
		}
		END {
			printf "%d cases on %s in %d seconds: ", cases, where, seconds
			printf "%d passed, %d failed, %d broken, %d skipped\n",
				count["passed"], count["failed"], count["broken"], count["skipped"]
			for (i = 1; i <= others; i++) print why[i]
		}' "$1"
}

begun=$(date +%s)
# The status of a pipe is that of tee.
{
	rc=0
	kyua test -r "$report/results.db" -k Kyuafile || rc=$?
	echo "$rc" > "$report/status"
} | tee "$report/output.txt"
rc=$(cat "$report/status")
kyua report --verbose -r "$report/results.db" > "$report/report.txt" || true
seconds=$(($(date +%s) - begun))
# Only what needs a module that the system may lack.
if grep -- '->  skipped' "$report/output.txt" | grep -v 'geom_virstor cannot be loaded'; then
	echo "these must not be skipped here" >&2
	rc=1
fi
summary "$report/output.txt" "$seconds" | tee "$report/summary.txt"
exit "$rc"
