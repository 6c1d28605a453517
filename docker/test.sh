#!/usr/bin/env bash
# The container, tested on a real engine: built on a base image of this distribution's packages (or
# on BASE_IMAGE), then used as docs/docker.md says, on a clone of the last commit.
# Usage: docker/test.sh [build] [one_machine] [mistakes] [cluster], or all
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
unset COMPOSE_FILE COMPOSE_PROFILES PIPELINE EXPERIMENT MACHINES PROCESSES FIRST

docker/engine.sh
export BASE_IMAGE=${BASE_IMAGE:-}
if [ -z "$BASE_IMAGE" ]; then
    BASE_IMAGE=steadyspike-base
    docker/base.sh "$BASE_IMAGE"
fi

# Who uses it: the caller, or for root somebody else, since root may write everywhere.
uid=$(id -u) gid=$(id -g)
if [ "$uid" = 0 ]; then uid=1000 gid=1000; fi

folder=$(mktemp -d)
chmod 755 "$folder"
export COMPOSE_ANSI=never STEADYSPIKE_IMAGE=steadyspike-test COMPOSE_PROJECT_NAME=steadyspike-test
clone=$folder/steadyspike
finish() {
    cd "$root"
    for project in steadyspike-test steadyspike-other; do
        docker compose --project-name "$project" --file "$clone/compose.yaml" \
            --file "$clone/docker/cluster.yaml" --profile '*' down --timeout 5 > /dev/null 2>&1 || true
    done
    rm -rf "$folder"
    # The image stays, so that the next build is quick; not those that it has replaced.
    docker image prune --force --filter label=org.opencontainers.image.title=steadyspike > /dev/null
    [ "${CI:-}" != true ] || "$root/docker/engine.sh" stop
}
trap finish EXIT
. docker/test/say.sh
command git clone --quiet . "$clone"
cd "$clone"
printf 'UID=%s\nGID=%s\n' "$uid" "$gid" > .env
give_to_caller

parts=${*:-build one_machine mistakes cluster} passed=
for part in $parts; do
    echo "docker-test: $part"
    part_began=$SECONDS
    # shellcheck source=/dev/null
    . "docker/test/$part.sh"
    passed="$passed${passed:+ }$part"
    echo "docker-test: $part passed in $((SECONDS - part_began)) s"
done
[ "$passed" = "$parts" ] || fail "only these parts have passed: $passed"
echo "docker-test: all passed in $SECONDS s"
