"""What differs between tasks: the ground-truth loss and the metrics."""
