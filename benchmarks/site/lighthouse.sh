#!/usr/bin/env bash
# Lighthouse over three pages of the built site, on a phone and on a desk, as a Markdown table.
# Needs node with npm and a Chromium (CHROME_PATH). Run `byhand site` first.
set -euo pipefail
cd "$(dirname "$0")/../.."

tools=_build/lighthouse
export CHROME_PATH=${CHROME_PATH:-$(command -v chromium)}
[ -d "$tools/node_modules/lighthouse" ] || npm install --silent --no-save --prefix "$tools" lighthouse@12
python site/check.py --serve 8765 &
server=$!
trap 'kill "$server"' EXIT
sleep 1

echo "| page | device | performance | accessibility | best practices | SEO | KiB | shift | largest paint, s |"
echo "|---|---|---|---|---|---|---|---|---|"
for page in index lectures/51-softmax lectures/61-two-layer; do
    for device in mobile desktop; do
        preset=$([ "$device" = desktop ] && echo --preset=desktop || true)
        "$tools/node_modules/.bin/lighthouse" "http://127.0.0.1:8765/$page.html" $preset --quiet --output=json \
            --output-path="$tools/report.json" \
            --chrome-flags="--headless --no-sandbox --disable-gpu --disable-quic --disable-sync --disable-background-networking"
        python - "$page" "$device" "$tools/report.json" <<'PYTHON'
import json
import sys

page, device, path = sys.argv[1:]
with open(path, encoding="utf-8") as file:
    report = json.load(file)
scores = [round(100 * report["categories"][key]["score"]) for key in ("performance", "accessibility", "best-practices", "seo")]
audits = {key: report["audits"][key]["numericValue"] for key in ("total-byte-weight", "cumulative-layout-shift", "largest-contentful-paint")}
kib, shift, paint = audits.values()
print("|", " | ".join(map(str, [page, device, *scores, f"{kib / 1024:.0f}", f"{shift:.3f}", f"{paint / 1000:.1f}"])), "|")
PYTHON
    done
done
