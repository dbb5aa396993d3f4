#!/usr/bin/env bash
# Run a command that opens windows, on a virtual screen if this machine has none.
#
#     scripts/headless.sh python -m pytest
#
# QT_QPA_PLATFORM=offscreen is no substitute: napari needs OpenGL.
set -euo pipefail

if [[ "$(uname -s)" != Linux || -n "${DISPLAY:-}" ]]; then
  exec "$@"
fi
if ! command -v xvfb-run >/dev/null; then
  echo "headless: there is no screen, and no xvfb-run to make one (on Debian: apt-get install xvfb xauth)" >&2
  exit 1
fi
export HRVIEWER_HEADLESS=1  # the demo closes its window at the end
# 1600x1000: wide enough for the canvas beside the docked panel; 24 bits: what OpenGL needs.
exec xvfb-run -a -s "-screen 0 1600x1000x24" "$@"
