"""Build the two variants for the CPU that they are built on."""

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup

# Sums may be reordered, or GCC does not vectorise them. Not -ffast-math: it would make the whole process flush
# subnormal numbers to zero.
FLAGS = ["-O3", "-march=native", "-fopenmp", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math"]
OPTIONS = {
    "language_level": 3, "boundscheck": False, "wraparound": False, "cdivision": True, "initializedcheck": False,
}  # fmt: skip

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"jitconv_cython.{name}",
                [f"jitconv_cython/{name}.pyx"],
                include_dirs=[np.get_include()],
                define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
                extra_compile_args=FLAGS,
                extra_link_args=["-fopenmp"],
            )
            for name in ("loops", "naive")
        ],
        compiler_directives=OPTIONS,
    )
)
