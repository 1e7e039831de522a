#!/bin/sh
# Formatting, vet, linters, shell and manual page lint. A tool that is missing fails.
# The linters are those of lint/go.mod, at the versions that it says; they come from the
# module proxy, and are kept in go's cache from then on.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go}

# Installed, and not run by go tool, which builds for the system that GOOS says.
linters=$(mktemp -d)
trap 'rm -rf "$linters"' EXIT
GOBIN=$linters "$go" install -modfile=tests/lint/go.mod tool

unformatted=$(gofmt -l .)
if [ -n "$unformatted" ]; then
	echo "gofmt would change: $unformatted"
	exit 1
fi
"$go" vet ./...
"$go" mod verify >/dev/null
"$go" mod tidy -diff

# All of staticcheck's checks but three: package comments that begin otherwise (ST1000: a
# command's begins with Command) and names (ST1003: those of C and of the format are kept)
# are a matter of taste, and a comment on an error's value says "ErrX: when" (ST1022).
for system in linux freebsd; do
	echo "staticcheck $system"
	GOOS=$system "$linters"/staticcheck -checks all,-ST1000,-ST1003,-ST1022 ./...
	echo "deadcode $system"
	dead=$(GOOS=$system "$linters"/deadcode -test ./...)
	if [ -n "$dead" ]; then
		echo "$dead"
		exit 1
	fi
	echo "errcheck $system"
	GOOS=$system "$linters"/errcheck -ignoretests -exclude tests/lint/errcheck.txt \
		./ondisk/... ./geomlib/... ./ggated-virstor/... ./gvirstor/...
done

# GOVULNDB names a copy of the database of vulnerabilities, such as file:///var/db/vulndb,
# where https://vuln.go.dev is out of reach. Without either there is nothing to look in.
echo govulncheck
if ! "$linters"/govulncheck -db "${GOVULNDB:-https://vuln.go.dev}" ./... >"$linters"/vulnerable 2>&1; then
	cat "$linters"/vulnerable
	grep -q '^govulncheck: fetching vulnerabilities:' "$linters"/vulnerable
	echo "govulncheck: skipped"
fi

echo actionlint
"$linters"/actionlint
# A tag of an action may be moved; a commit may not.
if grep -rhE '^ *(- )?uses:' .github/workflows | grep -vE '@[0-9a-f]{40} # v[0-9.]+$'; then
	echo "these actions are not pinned to a commit, with its version behind it"
	exit 1
fi

scripts=$(git ls-files | while read -r f; do
	case $f in
	*.sh | rc.d/* | ggated-virstor/examples/*.status-* | ggated-virstor/examples/*.snapshot-* | tests/*_test) echo "$f" ;;
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
