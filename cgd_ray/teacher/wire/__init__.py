"""Wire formats of teacher APIs: one file a provider, two pure functions each.

`build_request(options, messages, max_tokens)` and `parse_response(options, response)`; no file here
opens a connection or knows a key.
"""
