#!/usr/bin/env bash
# Makes a base image from the packages of this machine's Debian or Ubuntu, for where no image can be
# pulled. It trusts the certificate authorities that this machine trusts. Usage: docker/base.sh NAME
set -euo pipefail
name=$1
docker image inspect "$name" > /dev/null 2>&1 && exit

fail() { # WORDS...
    echo "base: $*" >&2
    exit 2
}

if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    fail "only root on Debian or Ubuntu can make a base image; name one that Docker can pull:" \
        "BASE_IMAGE=debian:bookworm-slim make docker-test"
fi
# shellcheck source=/dev/null
. /etc/os-release
# shellcheck disable=SC2016
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
    awk -v release="$VERSION_CODENAME" '$2 == release { print $1; exit }')
[ -n "$mirror" ] || fail "apt's sources name no mirror of $VERSION_CODENAME"
command -v debootstrap > /dev/null ||
    (apt-get update && apt-get install --yes --no-install-recommends debootstrap) > /dev/null
folder=$(mktemp -d)
trap 'rm -rf "$folder" "$folder.log"' EXIT
chmod 755 "$folder"
debootstrap --variant=minbase --include=ca-certificates "$VERSION_CODENAME" "$folder" "$mirror" \
    > "$folder.log" 2>&1 || fail "debootstrap failed: $(tail -n 5 "$folder.log")"
cp -R /usr/local/share/ca-certificates/. "$folder/usr/local/share/ca-certificates/"
chroot "$folder" update-ca-certificates > /dev/null 2>&1
rm -rf "$folder"/var/lib/apt/lists/* "$folder"/var/cache/*
tar --directory "$folder" --create . | docker import - "$name" > /dev/null
