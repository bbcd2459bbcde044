"""Stand-ins for the convolution and pooling of code bases that people learn CNNs from; only the import changes.

Each module has the names, signatures, layouts, return order and attributes of the project that it is called after, and
computes with jitconv's kernels. Where a project is known to be wrong, its module is right unless `strict=True` asks for
what the original does.
"""
