# What a container may do, asked from within: a line each. Exit status 0 if nothing but its mounts.
# Usage: sh -c "$(cat docker/test/probe.sh)"
status=0
told() { # WHAT WHETHER DETAIL
    echo "$1 $2 $3"
    [ "$2" = no ] || status=1
}
# A folder on a file system that is read-only is not writable, whoever owns it.
writable=$(find / \( -path /proc -o -path /steadyspike -o -path /tmp -o -path /dev/shm \
    -o -path /dev/mqueue \) -prune -o -type d -writable -print 2> /dev/null | head -n 5 | tr '\n' ' ')
for file in /probe /opt/venv/probe /usr/local/bin/probe /var/tmp/probe /run/probe /etc/probe; do
    if (: > "$file") 2> /dev/null; then writable="$writable$file "; fi
done
if [ -z "$writable" ]; then told writes no; else told writes yes "$writable"; fi
held=$(sed -n 's/^Cap[A-Z][a-z]*:[[:space:]]*//p' /proc/self/status | sort -u | tr '\n' ' ')
if [ "$held" = "0000000000000000 " ]; then told capabilities no; else told capabilities yes "$held"; fi
if grep -q '^NoNewPrivs:[[:space:]]*1$' /proc/self/status && [ "$(id -u)" != 0 ]; then
    told privileges no
else
    told privileges yes "user $(id -u)"
fi
exit "$status"
