"""The embedded teacher: solves arithmetic exactly and speaks the OpenAI chat API."""
