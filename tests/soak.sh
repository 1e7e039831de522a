#!/bin/sh
# Run the crash harness for DURATION (default 10m) from SEED (default the time),
# and print what it did.
set -eu
cd "$(dirname "$0")/.."
duration=${DURATION:-10m}
seed=${SEED:-$(date +%s)}
exec "${GO:-go}" test -timeout 0 -run '^TestSoak$' -count=1 ./geomlib/virstor \
	-v -soak.duration="$duration" -soak.seed="$seed"
