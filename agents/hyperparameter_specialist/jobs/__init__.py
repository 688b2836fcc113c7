"""What the hyperparameter specialist runs in children: choosing the next trial, and the learning-rate range test."""
