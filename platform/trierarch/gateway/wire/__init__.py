"""HTTP/1.1 on both sides: bytes in, bytes out, no opinion about what they mean."""
