"""Image readers, one module per family of formats."""
