#!/bin/sh
# Installs a lock, every hash checked, into a new virtual environment.
# Usage: tools/setup.sh PYTHON FOLDER LOCK
set -eu
python=$1 folder=$2 lock=$3

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "setup: $python: expected Python 3.11 or newer; choose another with make PYTHON=..." >&2
    exit 2
}
rm -rf "$folder" 2> /dev/null || true
{ mkdir -p "$(dirname "$folder")" && mkdir "$folder"; } 2> /dev/null || {
    echo "setup: user $(id -u) cannot write $PWD/$folder: change its owner, or clone where you may write" >&2
    exit 2
}
printf '#!/bin/sh\n' > "$folder/probe"
chmod +x "$folder/probe"
"$folder/probe" 2> /dev/null || {
    echo "setup: no program may run in $PWD (mounted noexec?): clone to another disk" >&2
    exit 2
}
if ! output=$("$python" -m venv --clear "$folder" 2>&1); then
    remedy=
    "$python" -c 'import ensurepip' 2> /dev/null ||
        remedy=" (Debian and Ubuntu: install python3-venv)"
    echo "setup: $python cannot make a virtual environment$remedy: $(echo "$output" | tail -n 1)" >&2
    exit 2
fi
child=
install() { # COMMAND...: in the background, since a shell runs its traps only after a command in the foreground
    "$@" &
    child=$!
    wait "$child"
}
stop() { # STATUS
    [ -z "$child" ] || kill "$child" 2> /dev/null
    exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM HUP
echo "setup: installing the packages of $lock into $folder"
# uv takes a quarter of pip's time. Where only pip is configured for a mirror, uv finds no index.
pip="$folder/bin/python -m pip --disable-pip-version-check --quiet"
if install $pip install --require-hashes --requirement requirements-uv.lock &&
    install "$folder/bin/uv" pip install --quiet --python "$folder/bin/python" --require-hashes \
        --requirement "$lock"; then
    :
else
    echo "setup: uv could not install them, trying pip" >&2
    install $pip install --require-hashes --requirement "$lock"
fi
