#!/bin/sh
# Describes the machine, checks that results can be written, and runs the command.
steadyspike doctor --brief || true # it must not keep a run from starting

# By writing, since permissions do not show a read-only mount.
if ! probe=$(mktemp ./.writable-XXXXXX 2> /dev/null); then
    owner=$(stat -c %u .)
    if [ "$owner" != "$(id -u)" ]; then
        printf '%s\n' "container: this checkout belongs to user $owner, but user $(id -u) runs here;\
 run outside: printf 'UID=$owner\nGID=$(stat -c %g .)\n' >> .env" >&2
    else
        printf '%s\n' "container: this checkout is read-only, but results are written into it;\
 clone the repository where you may write" >&2
    fi
    exit 2
fi
rm -f "$probe"
exec "$@"
