"""What `serving_clients` runs under an interpreter that has the clients: one check a name.

CLIENTS_PYTHON benchmarks/serving_client_scripts.py openai http://127.0.0.1:8000/v1 KEY
"""

import json
import sys
from typing import Any

QUESTION = "Is 7 a prime number? Answer yes or no."


def openai(base_url: str, key: str) -> dict[str, Any]:
    """Use the openai client as its documentation does; errors must be its own exceptions."""
    from openai import AuthenticationError, BadRequestError, NotFoundError, OpenAI

    client = OpenAI(base_url=base_url, api_key=key, max_retries=0)
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    asked = {"model": "student", "messages": messages, "max_tokens": 24, "temperature": 0}
    answer = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert streamed == answer.choices[0].message.content
    assert chunks[-1].usage and chunks[-1].usage == answer.usage
    several = client.chat.completions.create(**{**asked, "temperature": 1.0}, n=3, seed=1)
    assert len(several.choices) == 3
    likely = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    assert likely.choices[0].logprobs and likely.choices[0].logprobs.content
    text = client.completions.create(model="student", prompt="Two and two", max_tokens=8)
    assert text.choices[0].text
    refused: dict[str, str] = {}
    for name, kind, call in (
        (
            "wrong key",
            AuthenticationError,
            lambda: OpenAI(base_url=base_url, api_key="no", max_retries=0).models.list(),
        ),
        (
            "unknown model",
            NotFoundError,
            lambda: client.chat.completions.create(**{**asked, "model": "nobody"}),
        ),
        (
            "too many tokens",
            BadRequestError,
            lambda: client.chat.completions.create(**{**asked, "max_tokens": 10**9}),
        ),
    ):
        try:
            call()
        except kind as error:
            refused[name] = f"{type(error).__name__}: {error.status_code}"
    assert len(refused) == 3, refused
    return {
        "models": [model.id for model in client.models.list()],
        "answer": streamed,
        "refused": refused,
    }


def langchain(base_url: str, key: str) -> dict[str, Any]:
    """Use langchain-openai: one answer, a stream, a batch, and the count of tokens."""
    from langchain_openai import ChatOpenAI

    model: Any = ChatOpenAI(
        model="student", base_url=base_url, api_key=key, temperature=0, max_tokens=24
    )
    answer = model.invoke(QUESTION)
    streamed = "".join(chunk.content for chunk in model.stream(QUESTION))
    batch = [one.content for one in model.batch([QUESTION] * 4)]
    assert streamed == answer.content
    assert batch == [answer.content] * 4
    assert answer.usage_metadata["output_tokens"] > 0
    return {"answer": streamed, "usage": answer.usage_metadata}


if __name__ == "__main__":
    name, url, own_key = sys.argv[1:]
    print(json.dumps({"openai": openai, "langchain": langchain}[name](url, own_key)))
