"""The engine's kernels in Triton, each beside a plain torch function of the same name in `reference`."""
