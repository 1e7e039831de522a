#!/bin/sh
# Run the kyua suite of the tree with the programs in bin/. Elsewhere than on FreeBSD
# the cases of tests/freebsd are skipped; any other skip fails.
set -eu
cd "$(dirname "$0")"
GVIRSTOR_BIN=$(cd ../bin && pwd)
GVIRSTOR_RC=$(cd ../rc.d && pwd)/ggated_virstor
export GVIRSTOR_BIN GVIRSTOR_RC
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
rc=0
kyua --config=none test -r "${KYUA_RESULTS:-$dir/results.db}" -k Kyuafile > "$dir/out" || rc=$?
cat "$dir/out"
allowed='^freebsd/'
if [ "$(uname -s)" = FreeBSD ]; then
	allowed="${ALLOWED_SKIPS:-^$}"
fi
if grep -- '->  skipped' "$dir/out" | grep -Ev "$allowed"; then
	echo "these must not be skipped here" >&2
	exit 1
fi
exit "$rc"
