"""What gradients, training tasks and memory budgets are measured with."""
