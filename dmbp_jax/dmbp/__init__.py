"""The paper: masked ReLU, decomposition, objective, loop, and the call `attribute`."""
