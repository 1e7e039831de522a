#!/bin/sh
# Run the kyua suite of the tree with the programs in bin/. Elsewhere than on FreeBSD
# the cases of tests/freebsd are skipped; any other skip fails. Its last lines say how many
# cases ended how, and why those that did not pass.
set -eu
cd "$(dirname "$0")"
GVIRSTOR_BIN=$(cd ../bin && pwd)
GVIRSTOR_RC=$(cd ../rc.d && pwd)/ggated_virstor
# Where kyua looks for what a case requires.
PATH=$GVIRSTOR_BIN:$PATH
export GVIRSTOR_BIN GVIRSTOR_RC PATH
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
rc=0
begun=$(date +%s)
kyua --config=none test -r "${KYUA_RESULTS:-$dir/results.db}" -k Kyuafile > "$dir/out" || rc=$?
cat "$dir/out"
sh ./summary.sh "$dir/out" $(($(date +%s) - begun))
allowed='^freebsd/'
if [ "$(uname -s)" = FreeBSD ]; then
	allowed="${ALLOWED_SKIPS:-^$}"
fi
if grep -- '->  skipped' "$dir/out" | grep -Ev "$allowed"; then
	echo "these must not be skipped here" >&2
	exit 1
fi
exit "$rc"
