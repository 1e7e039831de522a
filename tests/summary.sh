#!/bin/sh
# summary.sh FILE SECONDS: of what kyua(1) printed, how many cases ended how, and why those
# that did not pass. A line of it is "program:case  ->  result[: reason]  [1.234s]".
set -eu
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
