"""Compiled code only: kernels trust their arguments, fill what they are given and check nothing."""
