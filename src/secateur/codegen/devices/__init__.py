"""Running kernels on GPUs: what a library holds of them, the two drivers that launch them, and nvcc."""
