"""The embedded teacher: solves arithmetic and leg counts exactly and speaks the OpenAI chat API."""
