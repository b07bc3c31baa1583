"""Steps of PyTorch projects and ours, timed in turns on the same device."""
