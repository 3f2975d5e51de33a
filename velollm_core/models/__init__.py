"""What `velollm optimize` reasons over: a model's shape, the bytes it takes, the speed that bytes allow."""
