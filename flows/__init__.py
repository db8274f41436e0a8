"""One flow a file, each reading as one sentence."""

from flows.failures import explain_plainly

explain_plainly()
