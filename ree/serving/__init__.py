"""Serving language models over HTTP, by the endpoints of OpenAI's API."""
