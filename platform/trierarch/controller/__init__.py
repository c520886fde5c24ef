"""What an operator does on Kubernetes, in one process: deploys, counts, decides, scales."""
