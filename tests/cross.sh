#!/bin/sh
# Build and vet what this machine does not run: all processors for which there is Go on
# FreeBSD with 64 bits. It has none for powerpc64.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go}
for target in freebsd/amd64 freebsd/arm64 freebsd/riscv64 darwin/arm64; do
	GOOS=${target%/*} GOARCH=${target#*/} CGO_ENABLED=0
	export GOOS GOARCH CGO_ENABLED
	echo "$target"
	"$go" vet ./...
	if [ "$GOOS" = freebsd ]; then
		mkdir -p "dist/$GOOS-$GOARCH"
		"$go" build -trimpath -o "dist/$GOOS-$GOARCH/" ./ggated-virstor ./gvirstor
	else
		"$go" build -o /dev/null ./ggated-virstor
		"$go" build -o /dev/null ./gvirstor
	fi
done
