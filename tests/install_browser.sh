#!/usr/bin/env sh
# Put a Chromium that npm ships into a folder, for the test of the annotation page: sh tests/install_browser.sh FOLDER.
# Without npm the test takes the machine's own browser, and says so where there is none.
set -eu
command -v npm >/dev/null && command -v node >/dev/null || { echo "no npm: the page is tested in the machine's own Chromium"; exit 0; }
mkdir -p "$1"
cd "$1"
npm install --silent --no-audit --no-fund --no-save --prefix . @sparticuz/chromium@153.0.0
# Unpacked below TMPDIR: the browser, and libraries for machines that lack them.
TMPDIR=$(pwd) node --input-type=module -e '
import chromium, { inflate } from "@sparticuz/chromium";
await chromium.executablePath();
await inflate("node_modules/@sparticuz/chromium/bin/al2023.tar.br");
'
rm -rf node_modules
