"""Non-uniform downsampling: a small canvas with most pixels in the important places."""

from hrviewer.strategies.nonuniform.policy import NonUniform, NonUniformParams

__all__ = ["NonUniform", "NonUniformParams"]
