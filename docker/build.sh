#!/usr/bin/env bash
# Builds the image. Indexes that pip and uv use here are used for the build alone: no layer and no
# history holds them. Usage: [BASE_IMAGE=...] docker/build.sh NAME
set -euo pipefail
cd "$(dirname "$0")/.."
packages=$(mktemp)
trap 'rm -f "$packages"' EXIT
for variable in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST \
    UV_DEFAULT_INDEX UV_INDEX UV_INDEX_URL UV_EXTRA_INDEX_URL; do
    [ -z "${!variable:-}" ] || printf '%s=%q\n' "$variable" "${!variable}"
done > "$packages"
base=()
[ -z "${BASE_IMAGE:-}" ] || base=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
# The host's network: an index may be one that only this machine reaches. Without Buildx's own note
# of where the checkout lies.
BUILDX_GIT_INFO=0 docker buildx build --quiet --load --network host "${base[@]}" \
    --build-arg REVISION="$(git -c safe.directory='*' rev-parse HEAD)" \
    --secret "id=packages,src=$packages" --file docker/Dockerfile --tag "$1" .
