"""Command ``doctor``: a report on the installation, for bug reports.

Drivers, which can crash or hang, are probed in separate processes; a section that fails reports
its error and does not affect the others.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, distributions, entry_points, version
from pathlib import Path

from hrviewer.cli.common import JsonOption, app, command, print_json, print_rows
from hrviewer.errors import format_error, short_message
from hrviewer.units import format_si

__all__ = ["doctor"]

Rows = list[tuple[str, str]]

PACKAGES = (
    "numpy", "zarr", "dask", "tifffile", "imagecodecs", "openslide-python", "rasterio", "pydantic",
    "slideio", "nd2", "liffile", "pyvips", "fsspec",
    "torch", "timm", "onnxruntime", "onnxruntime-gpu", "napari", "vispy", "qtpy", "PyQt6",
    "PySide6", "PyQt5", "magicgui", "pandas", "pyarrow", "matplotlib", "scikit-image", "xarray",
)  # fmt: skip

VARIABLES = (
    "DISPLAY", "WAYLAND_DISPLAY", "XDG_SESSION_TYPE", "QT_API", "QT_QPA_PLATFORM",
    "LIBGL_ALWAYS_SOFTWARE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SSH_CONNECTION",
)  # fmt: skip
"""Environment variables that affect hrviewer, besides those named ``HRVIEWER_…``."""

GROUPS = {
    "strategies": "hrviewer.strategies",
    "further readers": "hrviewer.readers",
    "writers": "hrviewer.writers",
    "formats of models": "hrviewer.formats",
    "architectures": "hrviewer.architectures",
    "synthetic images": "hrviewer.samples",
    "training tasks": "hrviewer.training_tasks",
}

PROBE_SECONDS = 60
WALK_SECONDS = 5.0
"""Time limit for the size of a folder."""

TORCH_PROBE = """
import json, torch
rows = [("torch", f"{torch.__version__}, CUDA {torch.version.cuda or 'not built in'}")]
for i in range(torch.cuda.device_count()):
    p = torch.cuda.get_device_properties(i)
    rows.append((f"cuda:{i}", f"{p.name}, {p.total_memory / 2**30:.1f} GiB, compute capability "
                              f"{p.major}.{p.minor}"))
if not torch.cuda.is_available():
    rows.append(("cuda", "not available"))
if torch.backends.mps.is_available():
    rows.append(("mps", "available"))
rows.append(("threads", str(torch.get_num_threads())))
print(json.dumps(rows))
"""

ONNX_PROBE = """
import json, onnxruntime
print(json.dumps([("onnxruntime", ", ".join(onnxruntime.get_available_providers()))]))
"""

OPENGL_PROBE = """
import json, sys
from qtpy import API_NAME
from qtpy.QtCore import qVersion
from qtpy.QtGui import QGuiApplication, QOffscreenSurface, QOpenGLContext
application = QGuiApplication(sys.argv[:1])
screen = application.primaryScreen()
rows = [("Qt", f"{API_NAME} {qVersion()}, platform {application.platformName()}")]
if screen is not None:
    size = screen.size()
    scale = screen.devicePixelRatio()
    rows.append(("screen", f"{size.width()} × {size.height()}, scale {scale:g}"))
context = QOpenGLContext()
if context.create():
    surface = QOffscreenSurface()
    surface.create()
    context.makeCurrent(surface)
    from OpenGL import GL
    names = ("GL_VENDOR", "GL_RENDERER", "GL_VERSION")
    texts = (GL.glGetString(getattr(GL, name)) for name in names)
    rows.append(("OpenGL", ", ".join(text.decode() for text in texts if text)))
    rows.append(("max texture", f"{GL.glGetIntegerv(GL.GL_MAX_TEXTURE_SIZE)} px"))
else:
    rows.append(("OpenGL", "no context can be created"))
print(json.dumps(rows))
"""


@command(app)
def doctor(as_json: JsonOption = False) -> None:
    """Report versions, hardware, display, folders and plug-ins, to paste into a bug report."""
    sections: dict[str, Callable[[], Rows]] = {
        "versions": version_rows,
        "hardware": hardware_rows,
        "display": lambda: probe("display", OPENGL_PROBE),
        "folders": folder_rows,
        "models": model_rows,
        "plug-ins": plugin_rows,
        "environment": environment_rows,
    }
    with ThreadPoolExecutor() as pool:
        report = dict(zip(sections, pool.map(collect, sections.values()), strict=True))
    if as_json:
        print_json({title: dict(rows) for title, rows in report.items()})
        return
    width = max(len(name) for rows in report.values() for name, _ in rows)
    for title, rows in report.items():
        print_rows((f"[{title}]", ""), *((name.ljust(width), text) for name, text in rows))


def collect(section: Callable[[], Rows]) -> Rows:
    """Return the rows of a section, or its error."""
    try:
        rows = section()
    except Exception as error:  # the report must not fail
        rows = [("error", short_message(RuntimeError(format_error(error))))]
    home = str(Path.home())
    return [(name, text.replace(home, "~") if len(home) > 1 else text) for name, text in rows]


def version_rows() -> Rows:
    """Return the versions of hrviewer, Python and the packages it uses."""
    rows = [
        ("hrviewer", version("hrviewer")),
        ("Python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("system", f"{platform.platform()}, {platform.machine()}"),
    ]
    installed = []
    for name in PACKAGES:
        try:
            installed.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return [*rows, ("packages", ", ".join(installed))]


def hardware_rows() -> Rows:
    """Return processors, memory and compute devices."""
    from hrviewer.models.memory_usage import available_memory

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    rows = [
        ("CPU", f"{cores} of {os.cpu_count()} cores, {platform.processor() or platform.machine()}"),
        ("usable memory", format_si(available_memory(), "B")),
    ]
    smi = shutil.which("nvidia-smi")
    if smi is None:
        rows.append(("NVIDIA driver", "nvidia-smi not found"))
    else:
        query = [smi, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        rows.append(("NVIDIA driver", " | ".join(run_probe(query).split("\n"))))
    return rows + probe("torch", TORCH_PROBE) + probe("onnxruntime", ONNX_PROBE)


def folder_rows() -> Rows:
    """Return the folders of caches and runs with their sizes."""
    from hrviewer.paths import cache_folder, data_folder

    rows = []
    for name, folder in (("caches", cache_folder()), ("runs and data", data_folder())):
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        free = format_si(shutil.disk_usage(existing).free, "B")
        rows.append((name, f"{folder}: {describe_size(folder)}, {free} free"))
        for file in sorted(folder.glob("*")) if folder.is_dir() else ():
            rows.append((f"  {file.name}", describe_size(file)))
    return rows


def describe_size(path: Path) -> str:
    """Return the size of a file or folder; a lower bound where counting takes too long."""
    if not path.exists():
        return "does not exist"
    if path.is_file():
        return format_si(path.stat().st_size, "B")
    total, start = 0, time.monotonic()
    for folder, _, files in os.walk(path):
        for file in files:
            try:
                total += os.lstat(os.path.join(folder, file)).st_size
            except OSError:
                continue  # deleted in the meantime
        if time.monotonic() - start > WALK_SECONDS:
            return f"more than {format_si(total, 'B')}"
    return format_si(total, "B")


def model_rows() -> Rows:
    """Return the installed models with their roles, or why they cannot be loaded."""
    from hrviewer.models import installed_bundles

    rows = []
    for name, entry in installed_bundles().items():
        try:
            bundle = entry.load()
        except Exception as error:  # a plug-in may raise anything
            rows.append((name, f"cannot be loaded: {short_message(error)}"))
        else:
            rows.append((name, f"{bundle.title} ({', '.join(bundle.roles)})"))
    return rows or [("none", "pip install 'hrviewer[histology]' installs one")]


def plugin_rows() -> Rows:
    """Return the installed extensions, and the packages that provide them."""
    rows = []
    for title, group in GROUPS.items():
        names = sorted({entry.name for entry in entry_points(group=group)})
        rows.append((title, ", ".join(names) or "none"))
    providers = {
        f"{package.name} {package.version}"
        for package in distributions()
        if any(entry.group.startswith("hrviewer.") for entry in package.entry_points)
    }
    return [*rows, ("packages", ", ".join(sorted(providers)) or "none")]


def environment_rows() -> Rows:
    """Return the environment variables that affect hrviewer."""
    own = sorted(name for name in os.environ if name.startswith("HRVIEWER_"))
    rows = [(name, os.environ[name]) for name in (*own, *VARIABLES) if name in os.environ]
    return rows or [("none", "no variable is set")]


def probe(name: str, code: str) -> Rows:
    """Run code that prints rows as JSON in a new process; return its rows or its error."""
    try:
        return [(key, text) for key, text in json.loads(run_probe([sys.executable, "-c", code]))]
    except (RuntimeError, ValueError) as error:
        return [(name, f"error: {short_message(error)}")]


def run_probe(arguments: list[str]) -> str:
    """Return what a process prints.

    Raises
    ------
    RuntimeError
        If it fails or takes too long; the message is Qt's or the last line on standard error.
    """
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=PROBE_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(short_message(error)) from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        lines += [line for line in lines if line.startswith("qt.qpa.")][:1]
        raise RuntimeError(lines[-1] if lines else f"exit status {done.returncode}")
    return done.stdout.strip()
