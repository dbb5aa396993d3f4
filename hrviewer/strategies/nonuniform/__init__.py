"""Non-uniform downsampling: a small canvas that spends its pixels where they matter."""

from hrviewer.strategies.nonuniform.policy import NonUniform, NonUniformParams

__all__ = ["NonUniform", "NonUniformParams"]
