"""Text generation by language models: sources, tokenizers, templates, programs, receipts."""
