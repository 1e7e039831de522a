#!/bin/sh
# Formatting, vet, staticcheck, shell and manual page lint. A tool that is missing fails.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go}

unformatted=$(gofmt -l .)
if [ -n "$unformatted" ]; then
	echo "gofmt would change: $unformatted"
	exit 1
fi
"$go" vet ./...
"$go" mod verify >/dev/null
"$go" mod tidy -diff
"$go" run honnef.co/go/tools/cmd/staticcheck@"${STATICCHECK:-v0.8.2}" ./...
scripts=$(git ls-files | while read -r f; do
	case $f in
	*.sh | rc.d/* | ggated-virstor/examples/*.status-* | tests/*_test) echo "$f" ;;
	esac
done)
# shellcheck disable=SC2086
shellcheck -s sh $scripts
shellcheck -s bash .ci/run
for page in man/*.[0-9]; do
	if [ -e "$page" ]; then
		mandoc -T lint -W warning "$page"
	fi
done
