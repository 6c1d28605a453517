#!/usr/bin/env bash
# A Docker engine with Compose and Buildx. One that runs already is used as it is; else, as root on
# a Debian, all three are installed from the distribution and started. Usage: docker/engine.sh [stop]
# `stop` ends the engine that this script started, and no other.
set -euo pipefail
pidfile=/run/steadyspike-dockerd.pid
log=/var/log/steadyspike-dockerd.log

give_up() {
    echo "engine: $1; install Docker Engine with its plugins compose and buildx, or start it" >&2
    exit 2
}

# What this machine lacks to install anything, in the words of a sentence; nothing where it can.
obstacle() {
    if [ "$(uname -s)" != Linux ]; then
        echo "this is no Linux"
    elif [ "$(id -u)" != 0 ]; then
        echo "only root can"
    elif ! command -v apt-get > /dev/null; then
        echo "there is no apt-get"
    fi
}

quietly() { # COMMAND...: its output only where it fails
    local output
    output=$("$@" 2>&1) || {
        echo "$output" >&2
        give_up "$* failed"
    }
}

runs() { # PID: whether it is an engine's, and no more a number than a zombie or somebody else's
    case $(readlink "/proc/$1/exe") in
        */dockerd | */containerd) ;;
        *) return 1 ;;
    esac
}

if [ "${1:-}" = stop ]; then
    if [ -f "$pidfile" ]; then
        pid=$(cat "$pidfile")
        runs "$pid" && kill "$pid"
        for _ in $(seq 300); do
            runs "$pid" || break
            sleep 0.2
        done
        rm -f "$pidfile"
    fi
    exit
fi

if ! docker info > /dev/null 2>&1; then
    what="no Docker engine answers here"
    missing=$(obstacle)
    [ -z "$missing" ] || give_up "$what, and none can be installed: $missing"
    if ! command -v dockerd > /dev/null; then
        echo "engine: installing the distribution's docker.io"
        quietly apt-get update
        DEBIAN_FRONTEND=noninteractive \
            quietly apt-get install --yes --no-install-recommends docker.io iptables
    fi
    # A machine that went down leaves these, and their numbers to other processes: dockerd would wait
    # for those.
    for left in "$pidfile" /run/docker.pid /run/docker/containerd/containerd.pid; do
        [ ! -f "$left" ] || runs "$(cat "$left")" || rm -f "$left"
    done
    # In a session of its own, so that no terminal or caller waits for it or ends it.
    setsid dockerd --pidfile "$pidfile" > "$log" 2>&1 < /dev/null &
    for _ in $(seq 60); do
        docker info > /dev/null 2>&1 && break
        sleep 1
    done
    docker info > /dev/null 2>&1 || give_up "dockerd did not answer within 60 s ($log says why)"
fi

if ! docker compose version > /dev/null 2>&1 || ! docker buildx version > /dev/null 2>&1; then
    what="Docker's plugins compose and buildx are missing"
    missing=$(obstacle)
    [ -z "$missing" ] || give_up "$what, and cannot be installed: $missing"
    echo "engine: installing Docker's plugins compose and buildx"
    # Debian 12 has neither; those of Debian 13 are single static binaries. They are fetched with
    # package lists of their own, so that the machine's apt never sees another release.
    sources=/etc/apt/sources.list.d/debian.sources
    [ -f "$sources" ] || give_up "$what, and $sources is not there to find them by"
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    chmod 755 "$folder"
    mkdir -p "$folder/sources" "$folder/lists/partial" "$folder/cache/archives/partial"
    # The first paragraph is the distribution itself; its updates and security ones follow.
    awk -v RS= 'NR == 1' "$sources" |
        sed 's/^Suites:.*/Suites: trixie/' > "$folder/sources/trixie.sources"
    own_lists=(
        -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$folder/sources"
        -o "Dir::State::Lists=$folder/lists" -o "Dir::Cache=$folder/cache" -o APT::Sandbox::User=root
    )
    quietly apt-get "${own_lists[@]}" update
    cd "$folder"
    quietly apt-get "${own_lists[@]}" download docker-compose docker-buildx
    for package in ./*.deb; do dpkg --extract "$package" unpacked; done
    mkdir -p ~/.docker/cli-plugins
    find unpacked -path '*/cli-plugins/*' -type f -exec cp {} ~/.docker/cli-plugins/ \;
    docker compose version > /dev/null 2>&1 || give_up "$what, and those of Debian 13 do not run"
fi

echo "engine: Docker $(docker version --format '{{.Server.Version}}')," \
    "Compose $(docker compose version --short)"
