# What the parts of docker/test.sh share.
# shellcheck shell=bash disable=SC2154

fail() {
    echo "docker-test: FAILED: $1" >&2
    exit 1
}

# A figure and the most that it may be. Times bind in CI alone: elsewhere others use the machine too.
figure() { # NAME VALUE UNIT LIMIT
    echo "docker-test: $1: $2 $3 (at most $4)"
    if [ "$3" != s ] || [ "${CI:-}" = true ]; then
        awk -v value="$2" -v limit="$4" 'BEGIN { exit !(value <= limit) }' || fail "$1"
    fi
}

# Git as the caller, whose checkout this is: even a look at it writes the index anew.
git() {
    if [ "$uid" = "$(id -u)" ]; then command git "$@"; else
        HOME=$folder setpriv --reuid "$uid" --regid "$gid" --clear-groups git "$@"
    fi
}

# Whatever this test has written as root. Nothing that a container writes needs it.
give_to_caller() {
    [ "$uid" = "$(id -u)" ] || chown -R "$uid:$gid" .
}

# The message that a command fails with, which must hold these words.
refused() { # WORDS COMMAND...
    local words=$1 output
    shift
    if output=$("$@" 2>&1); then
        fail "$*: expected to be refused: $words"
    fi
    grep -E "$words" <<< "$output" | tail -n 1 || {
        echo "$output" >&2
        fail "$*: expected the words: $words"
    }
}

seconds() { # of a moment as Docker writes it, with its fraction
    date --date "$1" +%s.%N
}

wait_for() { # WORDS SERVICE: until its log holds them, 5 minutes at most
    for _ in $(seq 600); do
        if docker compose logs --no-log-prefix "$2" 2>&1 | grep -q "$1"; then return; fi
        sleep 0.5
    done
    docker compose logs "$2" >&2
    fail "$2 never said: $1"
}
