"""The method of the paper: neuron, normalization, threshold, loss; one idea a file."""
