"""Numba kernels: scalar loops over flat arrays, no allocation inside.

Layout of the layer engine: one *frame* is one timestep of one sample; codes and accumulators are
[frames, positions, channels] with positions row-major and channels contiguous. ``window`` holds
the half-open range of frames to work on, ``steps`` the number of frames (timesteps) per sample.
"""
