"""Millstream side by side with LiteLLM's proxy and with plain calls over each official SDK, in one run."""
