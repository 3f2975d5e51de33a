"""What `velollm detect` sees: processor, memory and its limits, GPUs of every vendor."""
