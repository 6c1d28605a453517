#!/bin/sh
# Restores the embedded images, data/, from the DVC remote in this repository; or says why not.
set -eu
cd "$(dirname "$0")/.."

refuse() { # REMEDY
    reason=$(printf '%s\n' "$output" | sed -n 's/^ERROR: //p; /^\//p' | tr '\n' ' ')
    [ -n "$reason" ] || reason=$(printf '%s\n' "$output" | tail -n 1)
    echo "data: dvc pull data.dvc: ${reason% }: $1" >&2
    exit 2
}

command -v dvc > /dev/null || {
    echo "data: dvc is not installed: run make setup, then . .venv/bin/activate" >&2
    exit 2
}
output=$(dvc pull data.dvc 2>&1) && exit
case $output in *"not a git repository"*)
    # A ZIP from GitHub, or a copy without .git: DVC then works without git, all but `dvc exp`.
    echo "data: no git checkout here; .dvc/config.local tells DVC to work without git" >&2
    for project in . pipelines; do
        printf '[core]\n    no_scm = true\n' >> $project/.dvc/config.local
    done
    output=$(dvc pull data.dvc 2>&1) && exit
    ;;
esac
case $output in
    *"unsaved files"*) refuse "move these files elsewhere, or dvc pull --force data.dvc restores the images" ;;
    *"acquire lock"*) refuse "wait until the other dvc has ended; if none runs, remove .dvc/tmp/lock" ;;
    *ermission*) refuse "change the owner of the named file, or run as its owner" ;;
    *"o space left"*) refuse "make room" ;;
    *) refuse "steadyspike doctor says more about this checkout" ;;
esac
