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
sh ./summary.sh "$report/output.txt" "$seconds" | tee "$report/summary.txt"
exit "$rc"
