#!/bin/sh
# packages.sh VERSION: deb and rpm in dist/, for Linux on the processors of ARCHS, with
# what install.sh installs. nfpm is that of nfpm/go.mod; it comes from the module proxy,
# and is kept in go's cache from then on.
set -eu
cd "$(dirname "$0")/.."
VERSION=$1
go=${GO:-go}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "${DIST:=dist}" "$work/here"
"$go" build -o "$work/here/" ./gvirstor # completes by the same words everywhere, and runs here
GOBIN=$work/here "$go" install -modfile=tests/nfpm/go.mod tool
export VERSION ARCH STAGE
for ARCH in ${ARCHS:-amd64 arm64}; do
	bin=$work/bin
	rm -rf "$bin"
	mkdir "$bin"
	CGO_ENABLED=0 GOOS=linux GOARCH=$ARCH "$go" build -trimpath \
		-ldflags "-s -w -X main.version=$VERSION -X main.defaultConfig=/etc/ggated-virstor.conf" \
		-o "$bin/" ./ggated-virstor ./gvirstor
	for shell in bash zsh fish; do
		"$work/here/gvirstor" completion "$shell" > "$bin/completion.$shell"
	done
	for packager in deb rpm; do
		case $packager in
		deb) zsh=share/zsh/vendor-completions ;;
		rpm) zsh=share/zsh/site-functions ;;
		esac
		STAGE=$work/$packager
		rm -rf "$STAGE"
		OS=Linux BIN=$bin SYSCONFDIR=/etc ZSH=$zsh sh tests/install.sh install "$STAGE" /usr
		"$work/here/nfpm" package -f tests/nfpm/nfpm.yaml -p "$packager" -t "$DIST"
	done
done
