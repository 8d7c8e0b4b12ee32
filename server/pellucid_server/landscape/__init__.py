"""How alike the ends of optimizations are: of small networks trained here, and of their images."""
