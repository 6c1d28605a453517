# The image: built from the lock, small, quick to build again.
# shellcheck shell=bash disable=SC2154

docker/build.sh "$STEADYSPIKE_IMAGE" > /dev/null
in_image() { docker run --rm --network none --entrypoint sh "$STEADYSPIKE_IMAGE" -c "$1"; }
size=$(docker image inspect --format '{{.Size}}' "$STEADYSPIKE_IMAGE")
python_packages=$(in_image 'du --bytes --summarize /opt/venv | cut -f 1')
figure "image over its Python packages" "$(((size - python_packages) / 1000000))" MB 300
echo "docker-test: image: $((size / 1000000)) MB, Python packages: $((python_packages / 1000000)) MB"
left=$(in_image 'ls -d /opt/cache /root/.cache /var/lib/apt/lists/* /var/cache/apt/* 2> /dev/null || true')
[ -z "$left" ] || fail "caches left in the image: $left"
[ "$(in_image 'id -u')" != 0 ] || fail "the image runs as root"
# Neither an index that served the build, nor where it was built.
for variable in PIP_INDEX_URL PIP_EXTRA_INDEX_URL UV_DEFAULT_INDEX UV_INDEX UV_INDEX_URL root clone; do
    [ -n "${!variable:-}" ] || continue
    ! grep -qF "${!variable}" <<< "$(docker history --no-trunc "$STEADYSPIKE_IMAGE"
        docker image inspect --format '{{json .Config}}' "$STEADYSPIKE_IMAGE")" ||
        fail "the image tells the value of $variable"
done
"$root/tools/sbom.sh" "$STEADYSPIKE_IMAGE" "$folder/sbom.json" || fail "no bill of materials"
# Without a checkout too: the image's own copy.
docker run --rm --network none "$STEADYSPIKE_IMAGE" steadyspike train --help > /dev/null ||
    fail "the image's own copy of the source does not run"

began=$(date +%s.%N)
echo "# a change" >> src/steadyspike/seeds.py
docker/build.sh "$STEADYSPIKE_IMAGE" > /dev/null
ended=$(date +%s.%N)
in_image 'grep -q "a change" src/steadyspike/seeds.py' || fail "the rebuild kept the old source"
figure "rebuild after a source change" \
    "$(awk -v a="$began" -v b="$ended" 'BEGIN { printf "%.1f", b - a }')" s 10
git checkout --quiet src/steadyspike/seeds.py
give_to_caller
