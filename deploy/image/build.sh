#!/bin/sh
# Builds the image with docker, podman or buildah, whichever there is first, or $ENGINE.
# TAG, BASE, MODEL and BUILD_OPTIONS (of the engine) may be set; PIP_* variables of the caller reach the build. The folders of
# PIP_CERT and PIP_FIND_LINKS, and $PIP_CACHE_DIR, are lent to it where the engine can.
set -eu
cd "$(dirname "$0")/../.."

engine=${ENGINE:-}
for each in docker podman buildah; do
    [ -n "$engine" ] || ! command -v "$each" >/dev/null 2>&1 || engine=$each
done
[ -n "$engine" ] || { echo "An image is built with docker, podman or buildah: none is here." >&2; exit 1; }

version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' aurea/__init__.py)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
# The commit's time and not the build's: two builds of one commit are to be the same.
committed=$(git log -1 --format=%ct 2>/dev/null || echo 0)
created=$(date -u -d "@$committed" +%Y-%m-%dT%H:%M:%SZ 2>/dev/null || date -u -r "$committed" +%Y-%m-%dT%H:%M:%SZ)

set -- --tag "${TAG:-aureavoice:$version}" \
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "CREATED=$created"
# compose.yaml runs the latest.
[ -n "${TAG:-}" ] || set -- "$@" --tag aureavoice:latest
for name in BASE MODEL PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_CERT; do
    eval "value=\${$name:-}"
    [ -z "$value" ] || set -- "$@" --build-arg "$name=$value"
done
if [ "$engine" != docker ]; then
    # HEALTHCHECK is no part of the other format.
    set -- "$@" --format docker --timestamp "$committed"
    [ -z "${PIP_CERT:-}" ] || set -- "$@" --volume "$(dirname "$PIP_CERT"):$(dirname "$PIP_CERT"):ro"
    [ ! -d "${PIP_FIND_LINKS:-}" ] || set -- "$@" --volume "$PIP_FIND_LINKS:$PIP_FIND_LINKS:ro"
    [ -z "${PIP_CACHE_DIR:-}" ] || set -- "$@" --volume "$PIP_CACHE_DIR:/root/.cache/pip"
fi
# Several options in one variable are meant to be split.
# shellcheck disable=SC2086
set -- "$@" ${BUILD_OPTIONS:-}
if [ "$engine" = buildah ]; then
    exec buildah bud --isolation "${ISOLATION:-chroot}" "$@" .
fi
exec "$engine" build "$@" .
