"""Step times of a real engine on one accelerator, beside the prediction."""
