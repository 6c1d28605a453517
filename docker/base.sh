#!/usr/bin/env bash
# A base image of this Debian's or Ubuntu's own packages, for machines that can pull none: the same
# release from the same mirror as the machine, trusting the same certificate authorities.
# Usage: docker/base.sh NAME
set -euo pipefail
name=$1
docker image inspect "$name" > /dev/null 2>&1 && exit

if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "base: only root on a Debian or Ubuntu can make a base image; name one that the engine" \
        "can pull, for example BASE_IMAGE=debian:bookworm-slim make docker-test" >&2
    exit 2
fi
# shellcheck source=/dev/null
. /etc/os-release
# What apt itself would ask for this release's packages, whatever file names it.
# shellcheck disable=SC2016
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
    awk -v release="$VERSION_CODENAME" '$2 == release { print $1; exit }')
if [ -z "$mirror" ]; then
    echo "base: apt's sources name no mirror of $VERSION_CODENAME" >&2
    exit 2
fi
if ! command -v debootstrap > /dev/null; then
    (apt-get update && apt-get install --yes --no-install-recommends debootstrap) > /dev/null
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
debootstrap --variant=minbase --include=ca-certificates "$VERSION_CODENAME" "$folder" "$mirror" \
    > "$folder.log" 2>&1 || {
    tail -n 5 "$folder.log" >&2
    exit 1
}
rm "$folder.log"
cp -R /usr/local/share/ca-certificates/. "$folder/usr/local/share/ca-certificates/"
chroot "$folder" update-ca-certificates > /dev/null 2>&1
chroot "$folder" apt-get clean
# As the slim images that distributions publish.
rm -rf "$folder"/var/lib/apt/lists/* "$folder"/var/cache/* "$folder"/var/log/* \
    "$folder"/usr/share/{info,locale,man}/*
find "$folder/usr/share/doc" -type f ! -name copyright -delete
tar --directory "$folder" --create . | docker import - "$name" > /dev/null
