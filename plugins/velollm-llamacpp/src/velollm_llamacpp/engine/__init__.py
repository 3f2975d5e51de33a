"""llama.cpp as an executor of the core's loop: the C interface in a child process, driven step by step."""
