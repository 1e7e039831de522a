#!/bin/sh
# package.sh VERSION PREFIX: a tarball for each target in dist/, to be unpacked
# at the root of the file system.
set -eu
cd "$(dirname "$0")/.."
version=$1 prefix=$2
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p dist "$stage/here"
# What shells complete by is the same everywhere; this one runs here.
"${GO:-go}" build -o "$stage/here/" ./gvirstor
for target in FreeBSD-amd64 FreeBSD-arm64 Linux-amd64 Linux-arm64; do
	os=${target%-*} arch=${target#*-}
	goos=$(echo "$os" | tr '[:upper:]' '[:lower:]')
	name=gvirstor-$version-$goos-$arch
	rm -rf "${stage:?}/bin" "${stage:?}/root"
	mkdir -p "$stage/bin"
	CGO_ENABLED=0 GOOS=$goos GOARCH=$arch "${GO:-go}" build -trimpath \
		-ldflags "-s -w -X main.version=$version -X main.defaultConfig=$prefix/etc/ggated-virstor.conf" \
		-o "$stage/bin/" ./ggated-virstor ./gvirstor ./tests/nbdio
	for shell in bash zsh fish; do
		"$stage/here/gvirstor" completion "$shell" > "$stage/bin/completion.$shell"
	done
	OS=$os BIN=$stage/bin sh tests/install.sh install "$stage/root" "$prefix"
	# The administrator's own file is not overwritten by unpacking.
	rm -f "$stage/root$prefix/etc/ggated-virstor.conf"
	tar -C "$stage/root" -czf "dist/$name.tar.gz" .
	echo "dist/$name.tar.gz"
done
