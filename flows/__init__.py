"""One flow a file, each reading as one sentence."""

from flows.failures import hide_refusal_tracebacks

hide_refusal_tracebacks()
