"""One flow a file, each reading as one sentence."""
