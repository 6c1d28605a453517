#!/usr/bin/env bash
# Builds the image with the package indexes that pip and uv use here, which no layer keeps.
# Usage: [BASE_IMAGE=...] docker/build.sh NAME
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
# Host network: only this machine may reach the index. BUILDX_GIT_INFO=0: the image does not record
# the path of the checkout.
BUILDX_GIT_INFO=0 docker buildx build --quiet --load --network host "${base[@]}" \
    --build-arg REVISION="$(git -c safe.directory='*' rev-parse HEAD 2> /dev/null || echo unknown)" \
    --secret "id=packages,src=$packages" --file docker/Dockerfile --tag "$1" .
