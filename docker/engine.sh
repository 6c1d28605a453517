#!/usr/bin/env bash
# Makes sure that a Docker engine with Compose and Buildx answers. A running engine is used as it
# is; otherwise all three are installed from the distribution and started, as root on Debian.
# Usage: docker/engine.sh [stop], where stop ends the engine that this script started, and no other
set -euo pipefail
pidfile=/run/steadyspike-dockerd.pid
log=/var/log/steadyspike-dockerd.log

fail() {
    echo "engine: $1; install Docker Engine with its plugins compose and buildx, or start it" >&2
    exit 2
}

need_root_on_debian() { # WHAT IS MISSING
    [ "$(uname -s)" = Linux ] || fail "$1, and this is not Linux"
    [ "$(id -u)" = 0 ] || fail "$1, and only root can install it"
    command -v apt-get > /dev/null || fail "$1, and there is no apt-get to install it with"
}

quietly() { # COMMAND...: print its output only if it fails
    local output
    output=$("$@" 2>&1) || {
        echo "$output" >&2
        fail "$* failed"
    }
}

is_engine() { # PID: a file may outlive its process, and the number go to another one
    case $(readlink "/proc/$1/exe") in
        */dockerd | */containerd) ;;
        *) return 1 ;;
    esac
}

start_engine() {
    need_root_on_debian "no Docker engine answers"
    if ! command -v dockerd > /dev/null; then
        echo "engine: installing the distribution's docker.io"
        quietly apt-get update
        DEBIAN_FRONTEND=noninteractive \
            quietly apt-get install --yes --no-install-recommends docker.io iptables
    fi
    # dockerd would wait for the processes that these files of an earlier engine name.
    for file in "$pidfile" /run/docker.pid /run/docker/containerd/containerd.pid; do
        [ ! -f "$file" ] || is_engine "$(cat "$file")" || rm -f "$file"
    done
    setsid dockerd --pidfile "$pidfile" > "$log" 2>&1 < /dev/null &
    for _ in $(seq 60); do
        docker info > /dev/null 2>&1 && return
        sleep 1
    done
    fail "dockerd did not answer within 60 s (see $log)"
}

install_plugins() {
    # Debian 12 has neither plugin. Those of Debian 13 are static binaries; they are downloaded with
    # package lists of their own, so that apt installs nothing else from there.
    what="Docker's plugins compose and buildx are missing"
    need_root_on_debian "$what"
    sources=/etc/apt/sources.list.d/debian.sources
    [ -f "$sources" ] || fail "$what, and there is no $sources to find them with"
    echo "engine: installing Docker's plugins compose and buildx"
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    chmod 755 "$folder"
    mkdir -p "$folder"/{sources,lists/partial,cache/archives/partial} ~/.docker/cli-plugins
    # The first paragraph is the release itself; updates and security fixes follow.
    awk -v RS= 'NR == 1' "$sources" |
        sed 's/^Suites:.*/Suites: trixie/' > "$folder/sources/trixie.sources"
    apt=(apt-get -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$folder/sources"
        -o "Dir::State::Lists=$folder/lists" -o "Dir::Cache=$folder/cache" -o APT::Sandbox::User=root)
    cd "$folder"
    quietly "${apt[@]}" update
    quietly "${apt[@]}" download docker-compose docker-buildx
    for package in ./*.deb; do dpkg --extract "$package" unpacked; done
    find unpacked -path '*/cli-plugins/*' -type f -exec cp {} ~/.docker/cli-plugins/ \;
    docker compose version > /dev/null 2>&1 || fail "$what, and those of Debian 13 do not run"
}

if [ "${1:-}" = stop ]; then
    [ -f "$pidfile" ] || exit 0
    pid=$(cat "$pidfile")
    is_engine "$pid" && kill "$pid"
    for _ in $(seq 300); do
        is_engine "$pid" || break
        sleep 0.2
    done
    rm -f "$pidfile"
    exit
fi
docker info > /dev/null 2>&1 || start_engine
{ docker compose version && docker buildx version; } > /dev/null 2>&1 || install_plugins
echo "engine: Docker $(docker version --format '{{.Server.Version}}')," \
    "Compose $(docker compose version --short)"
