#!/bin/sh
# Builds the programs and the engine's benchmarks of another revision and of this tree, and
# measures both in turn: tests/bench/compare.sh REVISION [options of tests/bench]
set -eu

: "${GO:=go}"
if [ -z "${1:-}" ]; then
	echo "usage: make bench-compare OLD=REVISION (a commit, a tag or a branch of this repository)" >&2
	exit 2
fi
old=$1
shift
cd "$(dirname "$0")/../.."
revision=$(git rev-parse --verify --quiet "$old^{commit}") || {
	echo "bench-compare: no revision $old in this repository" >&2
	exit 2
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

# build FOLDER OUT: the programs and the engine's benchmarks of the tree in FOLDER.
build() (
	cd "$1"
	mkdir -p "$2"
	"$GO" build -o "$2/" ./gvirstor ./ggated-virstor
	"$GO" test -c -o "$2/engine.test" ./geomlib/virstor
)

mkdir "$work/tree"
git archive "$revision" | tar -xf - -C "$work/tree"
echo "ours: this tree; before: $revision"
build "$work/tree" "$work/old"
build "$PWD" "$work/new"
"$GO" run ./tests/bench -bin "$work/new" -old "$work/old" -json tests/bench/out/compare.json "$@"
