"""What parameters keep between steps: checkpoints, and the memory that it takes."""
