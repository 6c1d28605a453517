#!/usr/bin/env bash
# Tests the container on a real engine, on a clone of the last commit, as docs/docker.md describes it.
# The base image is BASE_IMAGE, or one made of this distribution's packages.
# Usage: docker/test.sh [build] [one_machine] [mistakes] [cluster], all by default
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
unset COMPOSE_FILE COMPOSE_PROFILES PIPELINE EXPERIMENT MACHINES PROCESSES FIRST
export COMPOSE_ANSI=never STEADYSPIKE_IMAGE=steadyspike-test COMPOSE_PROJECT_NAME=steadyspike-test
export REPORT_PORT=8765

fail() {
    echo "docker-test: FAILED: $1" >&2
    exit 1
}

# Git as the owner of the clone: even `git diff` writes the index.
git() {
    if [ "$uid" = "$(id -u)" ]; then command git "$@"; else
        HOME=$folder setpriv --reuid "$uid" --regid "$gid" --clear-groups git "$@"
    fi
}

# What this script has written as root.
give_to_user() {
    [ "$uid" = "$(id -u)" ] || chown -R "$uid:$gid" .
}

unchanged() { # WHAT
    git diff --exit-code --stat -- dvc.lock reports || fail "$1 changed dvc.lock or reports"
}

wait_for() { # WORDS SERVICE: until its log holds them, 5 minutes at most
    for _ in $(seq 600); do
        if docker compose logs --no-log-prefix "$2" 2>&1 | grep -q "$1"; then return; fi
        sleep 0.5
    done
    docker compose logs "$2" >&2
    fail "$2 never printed: $1"
}

refused() { # WORDS COMMAND...: it fails, with these words in its output
    local words=$1 output
    shift
    if output=$("$@" 2>&1); then fail "$* succeeded, expected: $words"; fi
    grep -E "$words" <<< "$output" | tail -n 1 || {
        echo "$output" >&2
        fail "$* failed otherwise than expected: $words"
    }
}

build() {
    docker/build.sh "$STEADYSPIKE_IMAGE" > /dev/null
    docker image inspect --format 'docker-test: image of {{.Size}} bytes' "$STEADYSPIKE_IMAGE"
    [ "$(docker run --rm --entrypoint id "$STEADYSPIKE_IMAGE" -u)" != 0 ] || fail "it runs as root"
    # Without a checkout the image's own copy runs.
    docker run --rm --network none "$STEADYSPIKE_IMAGE" steadyspike train --help > /dev/null ||
        fail "the image's own copy of the source does not run"
    for variable in PIP_INDEX_URL PIP_EXTRA_INDEX_URL UV_DEFAULT_INDEX UV_INDEX UV_INDEX_URL root clone; do
        [ -n "${!variable:-}" ] || continue
        ! grep -qF "${!variable}" <<< "$(docker history --no-trunc "$STEADYSPIKE_IMAGE"
            docker image inspect --format '{{json .Config}}' "$STEADYSPIKE_IMAGE")" ||
            fail "the image's history contains $variable"
    done
    echo "# a change" >> src/steadyspike/errors.py
    local began=$SECONDS
    docker/build.sh "$STEADYSPIKE_IMAGE" > /dev/null
    echo "docker-test: rebuilt after a change of the source in $((SECONDS - began)) s"
    # On other machines than CI's, something else may be running.
    [ $((SECONDS - began)) -le 10 ] || [ "${CI:-}" != true ] || fail "rebuilding took over 10 s"
    docker run --rm --entrypoint grep "$STEADYSPIKE_IMAGE" -q "a change" src/steadyspike/errors.py ||
        fail "the rebuilt image has the old source"
    git checkout --quiet src/steadyspike/errors.py
    give_to_user
}

one_machine() {
    # A stopped training writes a checkpoint, from which the same command goes on.
    docker compose up --detach train > /dev/null 2>&1
    wait_for 'epoch 1/' train
    docker compose stop train > /dev/null 2>&1
    docker compose logs --no-log-prefix train 2>&1 | grep 'the same command goes on from' ||
        fail "a stopped container wrote no checkpoint"
    ls runs/*/checkpoint.pt > /dev/null
    docker compose up train 2>&1 | tail -n 15
    [ "$(docker inspect --format '{{.State.ExitCode}}' steadyspike-test-train-1)" = 0 ] ||
        fail "docker compose up train"
    unchanged "docker compose up train"

    docker compose run --rm test tests/snn/test_norm.py tests/kernels/test_build.py \
        tests/test_pins.py tests/test_files.py
    docker compose run --rm evaluate osr_ots > /dev/null 2>&1 || fail "evaluate"
    unchanged "evaluate"

    for service in $(docker compose --profile '*' config --services); do
        # shellcheck disable=SC2016
        docker compose run --rm --no-deps --entrypoint sh "$service" -c '
            ! touch /opt/venv/file 2> /dev/null && [ "$(id -u)" != 0 ] &&
                grep -q "^CapEff:[[:space:]]*0*$" /proc/self/status &&
                grep -q "^NoNewPrivs:[[:space:]]*1$" /proc/self/status' 2> /dev/null ||
            fail "$service may do more than it needs"
    done

    docker compose up --detach report > /dev/null 2>&1
    wait_for 'Serving HTTP' report
    exec 3<> "/dev/tcp/127.0.0.1/$REPORT_PORT"
    printf 'GET /index.html HTTP/1.0\r\n\r\n' >&3
    cmp <(sed '1,/^\r$/d' <&3) reports/index.html || fail "report serves another page"
    exec 3>&-
    docker compose down > /dev/null 2>&1
}

mistakes() { # docs/docker.md quotes these messages
    docker compose up --detach report > /dev/null 2>&1
    refused 'port is already allocated|address already in use' \
        docker compose --project-name steadyspike-other up --detach report
    docker compose down > /dev/null 2>&1
    echo 'services: {train: {volumes: [".:/steadyspike:ro"]}}' > "$folder/read-only.yaml"
    refused 'this checkout is read-only' \
        docker compose --file compose.yaml --file "$folder/read-only.yaml" run --rm train true
    refused "this checkout belongs to user $uid, but user 4321 runs here" \
        docker compose run --rm --user 4321:4321 train true
    refused 'expected a folder with a params.yaml' \
        env PIPELINE=pipelines/mnist docker compose run --rm train
    command -v nvidia-smi > /dev/null || refused 'could not select device driver' \
        docker compose --file compose.yaml --file docker/gpu.yaml run --rm train true
    refused 'Cannot connect to the Docker daemon' \
        env DOCKER_HOST=unix:///nowhere/docker.sock docker compose up train
    refused '127.0.0.1:29400: 3 machines did not meet there in time' \
        env MACHINES=3 PATIENCE=3 docker compose run --rm --env FIRST=127.0.0.1 worker
}

# Two containers as two machines: the same weights if one of them crashes.
cluster() {
    export PIPELINE=small
    mkdir small
    sed -E 's/widths: \[[^]]*\]/widths: [8, P, 16, P, 16, P, 16]/; s/epochs: [0-9]+/epochs: 2/
        s/batch: 50/batch: 100/; s/(steps|chunk): 4/\1: 2/' params.yaml > small/params.yaml
    give_to_user
    docker compose up worker 2>&1 | grep 'epoch' || fail "two machines"
    mv small/runs small/undisturbed

    # The first machine, where the others meet, is killed from within: the engine takes that for a
    # crash and starts it again.
    docker compose rm --force --stop worker > /dev/null 2>&1
    docker compose up --detach worker > /dev/null 2>&1
    wait_for 'epoch 1/2 .* test ' worker
    sleep 1
    docker compose exec --index 1 worker sh -c 'kill -9 -1' || true
    ls small/runs/osr_ots/checkpoint.pt > /dev/null || fail "killed too late for a test"
    for _ in $(seq 600); do
        [ -n "$(docker compose ps --quiet --status running --status restarting worker)" ] || break
        sleep 0.5
    done
    [ "$(docker inspect --format '{{.RestartCount}}' steadyspike-test-worker-1)" -ge 1 ] ||
        fail "the first machine was never restarted"
    for file in model.safetensors history.csv; do
        cmp "small/runs/osr_ots/$file" "small/undisturbed/osr_ots/$file" || {
            docker compose logs worker >&2
            fail "$file differs after a machine has crashed"
        }
    done
    unset PIPELINE
}

docker/engine.sh
export BASE_IMAGE=${BASE_IMAGE:-}
if [ -z "$BASE_IMAGE" ]; then
    BASE_IMAGE=steadyspike-base
    docker/base.sh "$BASE_IMAGE"
fi
# The user of the clone: the caller, but not root, who may write everywhere.
uid=$(id -u) gid=$(id -g)
if [ "$uid" = 0 ]; then uid=1000 gid=1000; fi
folder=$(mktemp -d)
chmod 755 "$folder"
clone=$folder/steadyspike
finish() {
    cd "$root"
    for project in steadyspike-test steadyspike-other; do
        docker compose --project-name "$project" --file "$clone/compose.yaml" --profile '*' \
            down --timeout 5 > /dev/null 2>&1 || true
    done
    rm -rf "$folder"
    # The image itself stays, for a quick build next time.
    docker image prune --force --filter label=org.opencontainers.image.title=steadyspike > /dev/null
    [ "${CI:-}" != true ] || "$root/docker/engine.sh" stop
}
trap finish EXIT
command git clone --quiet . "$clone"
cd "$clone"
printf 'UID=%s\nGID=%s\n' "$uid" "$gid" > .env
give_to_user
[ $# -gt 0 ] || set -- build one_machine mistakes cluster
for part in "$@"; do
    began=$SECONDS
    "$part"
    not_theirs=$(find . ! -uid "$uid" -print -quit)
    [ -z "$not_theirs" ] || fail "$not_theirs does not belong to the user"
    echo "docker-test: $part passed in $((SECONDS - began)) s"
done
echo "docker-test: all passed in $SECONDS s"
