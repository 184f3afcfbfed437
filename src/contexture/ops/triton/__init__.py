"""GPU kernels: the file of an op's name holds the path "triton" of that op, as `<name>_triton`.

`launch` has what every kernel needs; the laws of `contexture.testing.kernels` apply to each file by its being there.
Nothing in this package is imported before a kernel is asked for, since Triton is not installed everywhere.
"""
