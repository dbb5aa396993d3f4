#!/usr/bin/env bash
# Install the system packages that a window on a machine without a screen needs.
#
# napari draws with OpenGL, so Qt's own "offscreen" platform is not enough: the
# tests open real windows on a virtual X server (Xvfb) with Mesa's software OpenGL.
#
# Only Debian and its relatives are handled, and only what is missing is installed.
# Elsewhere, or without the right to install, this says what is missing and goes on:
# most of the package works without a window.
set -euo pipefail

packages=(
  xvfb xauth                                          # the virtual screen
  libegl1 libgl1 libgl1-mesa-dri                      # OpenGL, drawn by the CPU
  libdbus-1-3 libfontconfig1 libglib2.0-0             # what Qt itself links to
  libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0
  libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxkbcommon-x11-0 # Qt's X11 plug-in
)

if [[ "$(uname -s)" != Linux ]] || ! command -v dpkg >/dev/null || ! command -v apt-get >/dev/null; then
  exit 0
fi

installed() {
  # Newer releases call some libraries NAMEt64.
  dpkg -s "$1" 2>/dev/null | grep -q '^Status: install ok installed' ||
    dpkg -s "${1}t64" 2>/dev/null | grep -q '^Status: install ok installed'
}

missing=()
for package in "${packages[@]}"; do
  installed "$package" || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  exit 0
fi

root=()
if ((EUID != 0)); then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    root=(sudo -n)
  else
    echo "setup: windows need these system packages, which only root can install:" >&2
    echo "    sudo apt-get install ${missing[*]}" >&2
    exit 0
  fi
fi

echo "setup: installing system packages: ${missing[*]}"
# `env` carries the setting through sudo, which drops the environment.
apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } >/dev/null; then
  echo "setup: could not install them; whatever opens a window will fail" >&2
fi
