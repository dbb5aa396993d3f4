"""Workaround for a crash of Mesa's software renderer.

With napari 0.9 on Mesa's llvmpipe (22.3, which screens without a GPU, remote ones and
virtual ones draw with): show images and a `Vectors` layer, remove them all, show another image, and
the process ends in ``glDrawArrays``. It does not where no GL program is deleted.
"""

from __future__ import annotations

from typing import Any

from vispy.gloo import gl, glir

__all__ = ["avoid_llvmpipe_crash"]


_original_delete = glir.GlirProgram.delete


def avoid_llvmpipe_crash() -> None:
    """Let programs be deleted by GPUs only; of a layer that is gone llvmpipe keeps some kilobytes.

    It holds for the whole process, and may be asked for again.
    """
    glir.GlirProgram.delete = _delete_unless_llvmpipe


def _delete_unless_llvmpipe(program: Any) -> None:
    # A context is current here, and only here.
    if "llvmpipe" not in str(gl.glGetParameter(gl.GL_RENDERER)):
        _original_delete(program)
