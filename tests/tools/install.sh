#!/bin/sh
# Installs what the tests marked `foreign` ask: Node (from Debian, when it is missing) and npm packages pinned by lock files.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    as_root=""
    [ "$(id -u)" -eq 0 ] || as_root="sudo"
    $as_root apt-get update -qq
    $as_root apt-get install -y -qq --no-install-recommends nodejs npm
fi

for folder in "$here" "$here/../../examples/node"; do
    (cd "$folder" && npm ci --silent --no-fund --no-audit --ignore-scripts)
done
