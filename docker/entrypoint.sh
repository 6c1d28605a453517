#!/bin/sh
# What every container begins with: the machine at a glance, and whether results can be written.
# It ends in exec, so that a stop reaches the program itself.
steadyspike doctor --brief || true # it tells; it never keeps a run from starting

# Asked by writing: a user of the same number may still be refused, by a mount that is read-only or
# a file system that maps numbers.
if ! probe=$(mktemp ./.writable-XXXXXX 2> /dev/null); then
    owner=$(stat -c %u .)
    if [ "$owner" != "$(id -u)" ]; then
        printf '%s\n' "container: this checkout belongs to user $owner, and user $(id -u) runs here:\
 tell Compose, on the machine, by: printf 'UID=$owner\nGID=$(stat -c %g .)\n' >> .env" >&2
    else
        printf '%s\n' "container: this checkout is read-only: results are written into it, so clone\
 the repository where you may write, and start again there" >&2
    fi
    exit 2
fi
rm -f "$probe"
exec "$@"
