"""llama.cpp: a running server, your binary, or the engine embedded."""
