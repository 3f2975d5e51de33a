"""Paged KV cache, scheduling and the one engine loop, as state machines over integers: no tensor, no device."""
